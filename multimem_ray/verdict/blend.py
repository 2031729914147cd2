"""One score of full models and of cheaper ones, their proxies: what both tell of the truth.

The truth is the score of very many full models. Proxies rank the samples by a truth of their own,
which may be nearly the same one or have nothing to do with it; their errors are those of other
models, other halves and other views, and so independent of the errors of the full pairs. Then

    Cov(truth, proxies) = Cov(full, proxies),    Cov(truth, full) = Cov(full) - its error

and with y = (cmc_out, multimem, those of the proxies), c = Cov(y, truth) and C = Cov(y) the best
linear prediction of the truth is ȳ₁ + c C⁻¹ (y - ȳ), as in :mod:`multimem_ray.verdict.shrinkage`,
and Var(truth) - c C⁻¹ c is left open. The error of the full scores is what pairs of models differ
by within a sample, so that two pairs are needed of either model.

The agreement of both truths is their correlation, free of error (Spearman 1904), its interval by
leaving out one of :data:`FOLDS` parts of the samples after the other (jackknife). Where it does not
exclude zero, proxies get no weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multimem_ray.verdict.shrinkage import MULTIMEM

Floats = NDArray[np.float64]
FOLDS = 20
LEAST = 100
"""Samples below which nothing is blended."""
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Blend:
    """How full models and proxies are blended.

    Attributes:
        mean: (4,) of cmc_out and score of the full models, and of the proxies.
        weights: (4,) of what a sample differs from it by.
        sd: Standard deviation of what the prediction leaves open.
        alone: (2,) weights of the full models, for samples without a score by the proxies.
        alone_sd: What that leaves open.
        agreement: Correlation of both truths, with a 95 % interval; None: there is no telling.
        samples: How many have both scores.
        variance: Of the truth.
    """

    mean: Floats
    weights: Floats
    sd: float
    alone: Floats
    alone_sd: float
    agreement: tuple[float, float, float] | None
    samples: int
    variance: float

    def limit(self, sd: float) -> float:
        """Correlation with the truth of a prediction that leaves this much open."""
        return math.sqrt(max(0.0, 1.0 - sd**2 / self.variance)) if self.variance > 0 else 0.0


class BlendMoments:
    """Sums over samples that the blend follows from, in one pass and in any grouping.

    Of either model there are at least two pairs.
    """

    def __init__(self) -> None:
        self._count = np.zeros(FOLDS)
        self._sums, self._products = np.zeros((FOLDS, 4)), np.zeros((FOLDS, 4, 4))
        self._within = np.zeros((FOLDS, 2))
        self._within_proxies = np.zeros(FOLDS)

    def update(self, full: Floats, proxies: Floats, folds: NDArray[np.int64]) -> None:
        """Add samples.

        Args:
            full: (N, P, 2) ``cmc_out`` and score by each full pair; samples with anything that is
                not finite are passed over, here and in the next.
            proxies: (N, Q, 2) the same by each pair of proxies.
            folds: (N,) in 0 … FOLDS - 1, a hash of the sample.
        """
        known = np.isfinite(full).all(axis=(1, 2)) & np.isfinite(proxies).all(axis=(1, 2))
        full, proxies, folds = full[known], proxies[known], folds[known]
        y = np.concatenate([full.mean(axis=1), proxies.mean(axis=1)], axis=1)
        np.add.at(self._count, folds, 1)
        np.add.at(self._sums, folds, y)
        np.add.at(self._products, folds, y[:, :, None] * y[:, None, :])
        np.add.at(self._within, folds, _error(full)[:, MULTIMEM])
        np.add.at(self._within_proxies, folds, _error(proxies)[:, MULTIMEM, MULTIMEM])

    @property
    def samples(self) -> int:
        """How many had both scores."""
        return int(self._count.sum())

    def fit(self, views: float) -> Blend | None:
        """The blend; None of fewer samples than :data:`LEAST`.

        Args:
            views: Variance that the views add to the full score.
        """
        if self.samples < LEAST:
            return None
        mean, covariance, errors, _ = self._moments(np.ones(FOLDS), views)
        shared = covariance[MULTIMEM].copy()
        shared[:2] -= errors
        alone, alone_sd = _best(covariance[:2, :2], shared[:2])
        agreement = self._agreement(views)
        weights, sd = _best(covariance, shared)
        if agreement is None or agreement[1] <= 0:
            weights, sd = np.concatenate([alone, np.zeros(2)]), alone_sd
        truth = max(0.0, float(shared[MULTIMEM]))
        return Blend(mean, weights, sd, alone, alone_sd, agreement, self.samples, truth)

    def _moments(self, use: Floats, views: float) -> tuple[Floats, Floats, Floats, float]:
        """Of some folds: mean and covariance of y, covariance of the full score's error with those
        of cmc_out and of itself, and variance of the proxies' error.
        """
        count = use @ self._count
        mean = use @ self._sums / count
        products = np.einsum("f,fjk->jk", use, self._products) / count
        errors = np.einsum("f,fk->k", use, self._within) / count + np.array([0.0, views])
        proxies = float(use @ self._within_proxies / count)
        return mean, products - np.outer(mean, mean), errors, proxies

    def _correlation(self, use: Floats, views: float) -> float:
        _, covariance, errors, of_proxies = self._moments(use, views)
        full = covariance[1, 1] - errors[MULTIMEM]
        proxies = covariance[3, 3] - of_proxies
        if min(full, proxies) <= 0:
            return math.nan
        return float(covariance[1, 3] / math.sqrt(full * proxies))

    def _agreement(self, views: float) -> tuple[float, float, float] | None:
        everything = np.ones(FOLDS)
        value = self._correlation(everything, views)
        without = np.array([self._correlation(everything - fold, views) for fold in np.eye(FOLDS)])
        if not math.isfinite(value) or not np.isfinite(without).all():
            return None
        # Free of error it may exceed 1 by chance, where Fisher's z has no meaning.
        reach = _Z95 * math.sqrt((FOLDS - 1) * float(np.var(without)))
        value, low, high = np.clip([value, value - reach, value + reach], -1.0, 1.0).tolist()
        return value, low, high


def _best(covariance: Floats, shared: Floats) -> tuple[Floats, float]:
    """Weights of the best linear prediction, and the standard deviation of what it leaves open."""
    truth = max(0.0, float(shared[MULTIMEM]))
    weights = np.linalg.pinv(covariance, hermitian=True) @ shared if truth else 0.0 * shared
    return weights, math.sqrt(max(0.0, truth - float(weights @ shared)))


def _error(values: Floats) -> Floats:
    """(N, 2, 2) squared error of the mean of (N, P, 2) pairs."""
    pairs = values.shape[1]
    off = values - values.mean(axis=1, keepdims=True)
    squares: Floats = np.einsum("npj,npk->njk", off, off) / ((pairs - 1) * pairs)
    return squares
