"""Standard errors that hold with few models: variances that learn from all samples.

The variance of one sample's score, from P pairs of models, has P - 1 degrees of freedom: with four
models one, and its own error is larger than itself. Over the samples of an audit such variances
scatter around a common one, and how much they scatter beyond chance tells how far each should be
trusted. That is the empirical Bayes of Smyth 2004 (Stat. Appl. Genet. Mol. Biol. 3, article 3,
"limma"): the true variances follow a scaled inverse chi-square with d0 degrees of freedom around
s0²,

    s̃² = (d0 s0² + d s²) / (d0 + d),        (score - truth) / (s̃ / √P)  ~  t with d0 + d,

and s² is distributed as s0² F(d, d0), from which d0 and s0² follow by maximum likelihood. Smyth
takes them from mean and variance of ln s². That is as good where d is large; with d = 1 most of
that variance comes from differences that happen to be near zero and tell nothing, and the
likelihood needs a fourth of the samples to be as sure of d0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, ndtr, ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]
LEAST = 100
"""Samples below which nothing is borrowed: each variance stands alone."""
_LOWEST, _WIDTH, _BINS = -46.0, 0.02, 3_200  # of ln s²: 1e-20 to 6e7
_ONE_AND_THE_SAME = 1e-3  # 1 / d0 below which variances are taken to scatter by chance alone


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
    """How ln s² is distributed over any number of samples, in one pass and in any grouping.

    Args:
        df: Degrees of freedom of each sample's variance.
    """

    def __init__(self, df: float) -> None:
        self._df = df
        self._counts = np.zeros(_BINS, np.int64)

    @property
    def count(self) -> int:
        """Samples with a variance."""
        return int(self._counts.sum())

    def update(self, variances: Floats) -> None:
        """Add samples; those without a variance, or with none above zero, say nothing."""
        usable = variances[np.isfinite(variances) & (variances > 0)]
        places = np.floor((np.log(usable) - _LOWEST) / _WIDTH).clip(0, _BINS - 1)
        self._counts += np.bincount(places.astype(np.intp), minlength=_BINS)

    def prior(self) -> VariancePrior:
        """What the samples say together; nothing is borrowed from fewer than :data:`LEAST`."""
        if self.count < LEAST:
            return NOTHING_BORROWED
        # Reading scores takes the classes of this file, and no optimizer.
        from scipy.optimize import minimize

        some = np.flatnonzero(self._counts)
        logs, weights = _LOWEST + (some + 0.5) * _WIDTH, self._counts[some] / self.count
        middle = math.log(weights @ np.exp(logs))
        found = minimize(
            lambda at: -float(weights @ _log_density(logs - at[0], self._df, math.exp(at[1]))),
            # Begins where variances scatter moderately, at d0 = 10.
            np.array([middle, -math.log(10.0)]),
            method="Nelder-Mead",
            bounds=[(middle - 10, middle + 1), (math.log(_ONE_AND_THE_SAME) - 1, math.log(10.0))],
            options={"xatol": 1e-5, "fatol": 1e-10, "maxiter": 1_000},
        )
        variance, inverse = math.exp(found.x[0]), math.exp(found.x[1])
        if inverse < _ONE_AND_THE_SAME:
            return VariancePrior(float(weights @ np.exp(logs)), math.inf)
        return VariancePrior(variance, 1 / inverse)


def _log_density(logs: Floats, df: float, inverse: float) -> Floats:
    """Logarithm of the density of ln F, F distributed as F(df, 1 / inverse)."""
    half, other = df / 2, 1 / (2 * inverse)
    tail = (half + other) * np.log1p(df * inverse * np.exp(logs))
    scale = half * math.log(df * inverse) - float(betaln(half, other))
    return np.asarray(half * logs - tail + scale, np.float64)


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
