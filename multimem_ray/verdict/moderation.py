"""Standard errors that hold with few models: variances that learn from all samples.

The variance of one sample's score, from P pairs of models, has P - 1 degrees of freedom: with four
models one, and its own error is larger than itself. Over the samples of an audit such variances
scatter around a common one, and how much they scatter beyond chance tells how far each should be
trusted. That is the empirical Bayes of Smyth 2004 (Stat. Appl. Genet. Mol. Biol. 3, article 3,
"limma"): the true variances follow a scaled inverse chi-square with d0 degrees of freedom around
s0²,

    s̃² = (d0 s0² + d s²) / (d0 + d),        (score - truth) / (s̃ / √P)  ~  t with d0 + d,

and d0 and s0² follow from mean and variance of e = ln s² - ψ(d / 2) + ln(d / 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, ndtr, ndtri, polygamma, stdtr, stdtrit

Floats = NDArray[np.float64]
LEAST = 100
"""Samples below which nothing is borrowed: each variance stands alone."""


@dataclass(frozen=True, slots=True)
class VariancePrior:
    """What all samples say about the variance of one.

    Attributes:
        variance: s0², in squared units of the score; 0 where nothing is borrowed.
        df: d0; infinite where variances scatter no more than chance, 0 where nothing is borrowed.
    """

    variance: float
    df: float

    def moderated(self, variances: Floats, df: float) -> Floats:
        """s̃² of each sample.

        Args:
            variances: (N,) of single samples.
            df: Degrees of freedom of each.
        """
        if math.isinf(self.df):
            return np.full_like(variances, self.variance)
        return (self.df * self.variance + df * variances) / (self.df + df)

    def quantile(self, df: float, confidence: float = 0.95) -> float:
        """By how many moderated standard errors a two-sided interval reaches out."""
        below = (1 + confidence) / 2
        return float(ndtri(below) if math.isinf(self.df) else stdtrit(self.df + df, below))

    def p_values(self, scores: Floats, errors: Floats, df: float) -> Floats:
        """(N,) probability of such a score, or a higher one, where nothing is memorized.

        Args:
            scores: (N,).
            errors: (N,) moderated standard errors.
            df: Degrees of freedom of the variance of a single sample.
        """
        return upper_tail(scores / errors, self.df + df)


def upper_tail(t: Floats, df: float) -> Floats:
    """Probability of more than t under Student's distribution, of the normal one with df = ∞."""
    return np.asarray(ndtr(-t) if math.isinf(df) else stdtr(df, -t), np.float64)


NOTHING_BORROWED = VariancePrior(0.0, 0.0)


class LogVariances:
    """Mean and variance of e, of any number of samples, in one pass and in any grouping.

    Args:
        df: Degrees of freedom of each sample's variance.
    """

    def __init__(self, df: float) -> None:
        self._offset = math.log(df / 2) - float(digamma(df / 2))
        self._df = df
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def update(self, variances: Floats) -> None:
        """Add samples; those without a variance, or with none above zero, say nothing."""
        usable = variances[np.isfinite(variances) & (variances > 0)]
        if not len(usable):
            return
        e = np.log(usable) + self._offset
        total, mean = self.count + len(e), float(e.mean())
        # Chan, Golub & LeVeque 1979: what two groups hold together.
        step = mean - self._mean
        self._squares += float(np.square(e - mean).sum())
        self._squares += step**2 * self.count * len(e) / total
        self._mean += step * len(e) / total
        self.count = total

    def prior(self) -> VariancePrior:
        """What the samples say together; nothing is borrowed from fewer than :data:`LEAST`."""
        if self.count < LEAST:
            return NOTHING_BORROWED
        beyond = self._squares / (self.count - 1) - float(polygamma(1, self._df / 2))
        if beyond <= 0:
            # The variance is one and the same; of logarithms only the mean is unbiased.
            return VariancePrior(math.exp(self._mean), math.inf)
        half = inverse_trigamma(beyond)
        log_s0 = self._mean + float(digamma(half)) - math.log(half)
        return VariancePrior(math.exp(log_s0), 2 * half)


def inverse_trigamma(value: float) -> float:
    """The x with ψ′(x) = value, by Newton's method on 1 / ψ′, which is nearly straight (limma)."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-12:
            break
    return x


def pair_error(differences: Floats) -> float:
    """Standard error of the score of two models, from samples that neither saw.

    Root mean square of their differences: how far from zero a score lies where nothing was
    memorized. It holds for single samples as far as these are like the held-out ones.

    Args:
        differences: (N,) consistency under one model less that under the other, of held-out
            samples; whatever the sign.
    """
    known = differences[np.isfinite(differences)]
    return float(np.sqrt(np.square(known).mean())) if len(known) else math.nan
