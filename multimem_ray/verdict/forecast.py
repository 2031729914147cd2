"""What a number of models would tell: how truly it ranks, and how much of the top a list finds.

From the models that there are follow the truth of each sample, as far as they know it (linear
Bayes, see :mod:`multimem_ray.verdict.shrinkage`), and the error of one block of models. Truths are
drawn from the former, audits with other numbers of blocks from the latter, and counted: how many of
the samples that are memorized most stand on the longest list that is false by no more than a share.

Reliability and the correlation with the limit, its root, are those of
:mod:`multimem_ray.verdict.reliability` where there are two blocks and more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multimem_ray.verdict.reliability import rank_reliability, spearman
from multimem_ray.verdict.shrinkage import MULTIMEM, truth_of

Floats = NDArray[np.float64]
TOP, FALSE = 0.2, 0.05
DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of an audit.

    Attributes:
        blocks: Its blocks of models.
        reliability: Correlation of its ranking with that of as many new models.
        limit: Correlation with the ranking by very many models.
        power: Share of the most memorized fifth that is on a list with 5 % false ones; None where
            there is no such list, which takes two blocks.
    """

    blocks: int
    reliability: float
    limit: float
    power: float | None


def forecast(values: Floats, blocks: Sequence[int], views: float = 0.0) -> list[Forecast]:
    """What is expected of audits with so many blocks; [] where scores do not tell.

    Args:
        values: (N, P, 2) ``cmc_out`` and score of each sample by each of P >= 2 blocks.
        blocks: Numbers of blocks.
        views: Variance that the views add to every score.
    """
    ranked = rank_reliability(values[:, :, MULTIMEM])
    if ranked is None:
        return []
    size = values.shape[1]
    y = values.mean(axis=1)
    off = values - y[:, None, :]
    error = np.einsum("npj,npk->jk", off, off) / ((size - 1) * len(values))
    drawn = _Drawn(y, error / size, error, views)
    found = []
    for number in blocks:
        reliability = max(0.0, ranked.at(number) or 0.0)
        power = drawn.audit(number)[1]
        found.append(Forecast(number, reliability, math.sqrt(reliability), power))
    return found


def forecast_of_one(scores: Floats, error: float, blocks: Sequence[int]) -> list[Forecast]:
    """The same from one block.

    Args:
        scores: (N,).
        error: Variance of the score of samples that no model saw, which is all error.
        blocks: Numbers of blocks.
    """
    own = np.array([[error]])
    if len(scores) < 4 or not float(scores.var(ddof=1)) > error > 0:
        return []
    drawn = _Drawn(scores[:, None], own, own, 0.0)
    audits = [drawn.audit(number) for number in blocks]
    return [
        Forecast(number, reliability, math.sqrt(max(0.0, reliability)), power)
        for number, (reliability, power) in zip(blocks, audits, strict=True)
    ]


class _Drawn:
    """Truths that a run leaves possible, and audits of them.

    Args:
        y: (N, k) columns of the samples, the last of them the score.
        error: (k, k) covariance of their error.
        of_block: (k, k) that of one block of models.
        views: See :func:`forecast`.
    """

    def __init__(self, y: Floats, error: Floats, of_block: Floats, views: float) -> None:
        self._of_block = of_block
        self._views = np.zeros_like(error)
        self._views[-1, -1] = views
        covariance = np.atleast_2d(np.cov(y, rowvar=False))
        self._truth = truth_of(covariance, error + self._views)
        weights = self._truth @ np.linalg.pinv(self._truth + error + self._views, hermitian=True)
        mean = y.mean(axis=0)
        expected = mean + (y - mean) @ weights.T
        # Drawn once and for all: the same scores, the same forecast.
        self._rng = np.random.default_rng(0)
        expected = np.tile(expected, (-(-DRAWS // len(y)), 1))
        left = self._truth - weights @ self._truth
        self._drawn = expected + self._normal((left + left.T) / 2, len(expected))

    def audit(self, blocks: int) -> tuple[float, float | None]:
        """Correlation between the rankings of two audits, and the power of a list of one."""
        count, error = len(self._drawn), self._of_block / blocks
        shown = self._drawn + self._normal(self._views, count)
        first, second = (shown + self._normal(error, count) for _ in range(2))
        repeated = spearman(first[:, -1], second[:, -1])
        if blocks < 2:
            return repeated, None
        weights = self._truth @ np.linalg.pinv(self._truth + error + self._views, hermitian=True)
        ranked = (first - first.mean(axis=0)) @ weights[-1]
        truth = self._drawn[:, -1]
        memorized = (truth > np.quantile(truth, 1 - TOP))[np.argsort(-ranked)]
        found = np.cumsum(memorized)
        fits = np.flatnonzero(found >= (1 - FALSE) * np.arange(1, count + 1))
        power = float(found[fits[-1]] / found[-1]) if len(fits) else 0.0
        return repeated, power

    def _normal(self, covariance: Floats, count: int) -> Floats:
        values, vectors = np.linalg.eigh(covariance)
        spread = vectors * np.sqrt(values.clip(0))
        drawn: Floats = self._rng.normal(size=(count, len(covariance))) @ spread.T
        return drawn
