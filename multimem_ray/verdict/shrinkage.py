"""The shrunk score: what is expected of the score of very many models, given that of a few.

A score of few models is truth and error, and the highest of many such scores are high by error as
well (the winner's curse). What the samples have in common tells how much of it is truth: the spread
of the scores over samples holds both, the spread between pairs of models within a sample the error
alone. With y = (cmc_out, multimem, …) of a sample, its mean over samples ȳ, E the covariance of its
error and S = Cov(y) - E that of the truth, the best linear prediction of the truth is

    m = ȳ + K (y - ȳ),    K = S (S + E)⁻¹,    and what is left of the truth's variance  V = S - K S

(linear Bayes; Efron & Morris 1973 for one column). ``cmc_out`` helps since what fits together badly
is memorized more.

V is a mean over all samples. Where a few are memorized far more than the rest, the highest are
drawn in too far, and V is too small just where people look. How far it grows there is measured by
cross-validation: two pairs of models at a time are predicted from the others. Their distances from
that have what is left of the truth in common, and errors that are independent, so that the mean of
their product is V without the error; it is regressed on the squared distance of the prediction from
the middle, below it and above. Of two pairs, each is predicted from the other, and the product is
the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MULTIMEM = 1
"""Which column of y is predicted."""
_MOST_PRODUCTS = 30


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """How scores are shrunk.

    Attributes:
        mean: (k,) ȳ.
        weights: (k,) the row of K that predicts the score.
        sd: Standard deviation of what the prediction leaves open, in units of the score.
    """

    mean: Floats
    weights: Floats
    sd: float

    def shrunk(self, values: Floats) -> Floats:
        """(N,) the shrunk score.

        Args:
            values: (N, k) columns of y.
        """
        shrunk: Floats = self.mean[MULTIMEM] + (values - self.mean) @ self.weights
        return shrunk


class ShrinkageMoments:
    """Sums over samples that the shrinkage follows from, in one pass and in any grouping.

    Args:
        columns: k, how many columns y has.
    """

    def __init__(self, columns: int = 2) -> None:
        self.count = self._pairs = 0
        self._mean = np.zeros(columns)
        self._squares = np.zeros((columns, columns))
        self._within = np.zeros((columns, columns))

    def update(self, pairs: Floats) -> None:
        """Add samples.

        Args:
            pairs: (N, P, k) columns of y as each of P >= 2 pairs of models has them; samples with
                anything that is not finite are passed over.
        """
        known = pairs[np.isfinite(pairs).all(axis=(1, 2))]
        if not len(known):
            return
        size, count = known.shape[1], len(known)
        self._pairs = size
        y = known.mean(axis=1)
        off = known - y[:, None, :]
        # The covariance of the mean of P pairs is that of one pair, over P.
        self._within += np.einsum("npj,npk->jk", off, off) / ((size - 1) * size)
        mean, total = y.mean(axis=0), self.count + count
        step, own = mean - self._mean, y - mean
        self._squares += own.T @ own + np.outer(step, step) * self.count * count / total
        self._mean = self._mean + step * count / total
        self.count = total

    def fit(self, views: float = 0.0) -> Shrinkage:
        """How scores are shrunk.

        Args:
            views: Variance that the views add to the score of every sample whatever the models;
                it is error, and no spread between models shows it.
        """
        return fit(self._mean, self._squares / (self.count - 1), self._within / self.count, views)

    def fit_to_fewer(self, views: float = 0.0) -> Shrinkage:
        """How scores of two pairs of models fewer are shrunk (of two pairs, of one fewer), by which
        :class:`SpreadMoments` predicts those.
        """
        errors = self._within / self.count
        more = errors * self._pairs / (self._pairs - (1 if self._pairs == 2 else 2))
        covariance = self._squares / (self.count - 1)
        return fit(self._mean, covariance - errors + more, more, views)


def fit(mean: Floats, covariance: Floats, errors: Floats, views: float = 0.0) -> Shrinkage:
    """The shrinkage of a mean (k,), and two covariances (k, k): of y, and of its error."""
    error = errors.copy()
    error[MULTIMEM, MULTIMEM] += views
    truth = truth_of(covariance, error)
    # Columns that never vary, such as a constant cmc_out, have no inverse and need none.
    weights = truth @ np.linalg.pinv(truth + error, hermitian=True)
    left = truth - weights @ truth
    return Shrinkage(mean, weights[MULTIMEM], float(np.sqrt(max(0.0, left[MULTIMEM, MULTIMEM]))))


def truth_of(covariance: Floats, error: Floats) -> Floats:
    """Covariance (k, k) of the truth, from those of y and of its error; never negative."""
    values, vectors = np.linalg.eigh(covariance - error)
    truth: Floats = (vectors * values.clip(0)) @ vectors.T
    return truth


@dataclass(frozen=True, slots=True)
class Spread:
    """What a prediction leaves open, by its place among the others.

    Attributes:
        middle: Mean of the shrunk score.
        variance: What is left open at the middle: that of the linear prediction.
        below: How it grows with the square of the distance below the middle, at least 0.
        above: The same above it.
    """

    middle: float
    variance: float
    below: float
    above: float

    def sd(self, shrunk: Floats) -> Floats:
        """(N,) standard deviation of what the shrunk scores leave open."""
        off = shrunk - self.middle
        below, above = _squares(off)
        return np.sqrt(self.variance + self.below * below + self.above * above)


class SpreadMoments:
    """Sums over samples that the spread follows from; a second pass, since it takes the shrinkage.

    Args:
        fewer: :meth:`ShrinkageMoments.fit_to_fewer`.
    """

    def __init__(self, fewer: Shrinkage) -> None:
        self._fewer = fewer
        self._products, self._sums = np.zeros((3, 3)), np.zeros(3)

    def update(self, pairs: Floats) -> None:
        """Add samples; see :meth:`ShrinkageMoments.update`."""
        known = pairs[np.isfinite(pairs).all(axis=(1, 2))]
        count, middle = known.shape[1], self._fewer.mean[MULTIMEM]
        single = (known - self._fewer.mean) @ self._fewer.weights
        whole, scores = single.sum(axis=1), known[:, :, MULTIMEM] - middle
        for one, other in _left_out(count):
            gone = single[:, one] if one == other else single[:, one] + single[:, other]
            off = (whole - gone) / (count - (1 if one == other else 2))
            product = (scores[:, one] - off) * (scores[:, other] - off)
            terms = np.stack([np.ones_like(off), *_squares(off)])
            self._products += terms @ terms.T
            self._sums += terms @ product

    def fit(self, shrinkage: Shrinkage) -> Spread:
        """The spread of a shrinkage by all pairs: it grows in proportion to its own variance."""
        # Reading scores takes the classes of this file, and no optimizer.
        from scipy.optimize import nnls

        middle, variance = float(shrinkage.mean[MULTIMEM]), shrinkage.sd**2
        if not (self._products[0, 0] and self._fewer.sd):
            return Spread(middle, variance, 0.0, 0.0)
        scale = np.sqrt(np.diag(self._products)).clip(min=np.finfo(float).tiny)
        # ‖R b - y‖ has the normal equations RᵀR and Rᵀy, which are what was summed up.
        values, vectors = np.linalg.eigh(self._products / np.outer(scale, scale))
        known = values > 1e-12
        roots, directions = np.sqrt(values[known]), vectors[:, known].T
        solution, _ = nnls(roots[:, None] * directions, directions @ (self._sums / scale) / roots)
        growth = solution / scale * variance / self._fewer.sd**2
        return Spread(middle, variance, float(growth[1]), float(growth[2]))


def _left_out(pairs: int) -> list[tuple[int, int]]:
    """Which two pairs are left out at a time; a few of many, since all say nearly the same."""
    if pairs == 2:
        return [(0, 0), (1, 1)]
    every = list(combinations(range(pairs), 2))
    return every[:: -(-len(every) // _MOST_PRODUCTS)]


def _squares(off: Floats) -> tuple[Floats, Floats]:
    """Squared distances below the middle, and above it."""
    return np.square(np.minimum(off, 0.0)), np.square(np.maximum(off, 0.0))
