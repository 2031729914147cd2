"""How far a ranking would repeat itself with other models.

Each block of models that stand against one another (a pair, the three folds) gives every sample a
score of its own. The scores of one half of the blocks, correlated with those of the other half,
are what two audits with half as many models would share; Spearman and Brown (1910) step that up to
all blocks,

    R = f r / (1 + (f - 1) r),    f = blocks ÷ blocks of a half,

the expected correlation with as many new models. √R is the correlation with the score of very many.

That is exact for scores. Ranks come closer to each other more slowly where few samples are
memorized far more than the rest, and f gets an exponent of at most 1, from what the correlation of
single blocks and that of halves say of its growth; with fewer than four blocks there are no two
such figures, and it is 1: what is told of ranks is then an upper estimate where scores are skewed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
SPLITS = 24
_Z95 = 1.959963984540054
_HIGHEST = 1 - 1e-9


def stepped_up(correlation: float | None, factor: float) -> float | None:
    """Reliability of ``factor`` times as many blocks; None where it has no meaning."""
    if correlation is None:
        return None
    bottom = 1 + (factor - 1) * correlation
    return factor * correlation / bottom if bottom > 0 else None


@dataclass(frozen=True, slots=True)
class RankReliability:
    """Agreement of rankings by half of the blocks.

    Attributes:
        half: Blocks in a half.
        correlation: Mean of Spearman's correlation over splits into halves.
        growth: Exponent with which f grows.
        error: Standard error of Fisher's z of the correlation.
    """

    half: int
    correlation: float
    growth: float
    error: float

    def at(self, blocks: int) -> float | None:
        """Reliability of the ranking by so many blocks."""
        return stepped_up(self.correlation, (blocks / self.half) ** self.growth)

    def blocks_for(self, reliability: float) -> float:
        """Blocks that the ranking takes to be so reliable; infinite where more would not help."""
        if self.correlation <= 0 or not self.growth:
            return math.inf
        odds = [r / (1 - r) for r in (reliability, min(self.correlation, _HIGHEST))]
        return float(self.half * (odds[0] / odds[1]) ** (1 / self.growth))

    def interval(self, blocks: int) -> tuple[float, float]:
        """95 % interval of :meth:`at`, by Fisher's z."""
        z = math.atanh(min(self.correlation, _HIGHEST))
        factor = (blocks / self.half) ** self.growth
        low, high = (math.tanh(z + side * _Z95 * self.error) for side in (-1, 1))
        # Below zero the formula soon has no meaning: nothing agrees.
        return stepped_up(max(0.0, low), factor) or 0.0, stepped_up(max(0.0, high), factor) or 0.0


def rank_reliability(values: Floats) -> RankReliability | None:
    """Split-half reliability of rankings; None below two blocks or four samples, or without spread.

    Args:
        values: (N, P) score of each sample by each block.
    """
    samples, blocks = values.shape
    if blocks < 2 or samples < 4 or not np.ptp(values, axis=0).all():
        return None
    half = blocks // 2
    single = np.corrcoef(rankdata(values, axis=0), rowvar=False)
    alone = float(single[np.triu_indices(blocks, 1)].mean())
    if half == 1:
        correlation, growth = alone, 1.0
    else:
        correlation = float(np.mean([_of_halves(values, order) for order in _orders(blocks)]))
        growth = _growth(alone, correlation, half)
    # Bonett & Wright 2000: the variance of z for Spearman's correlation.
    error = math.sqrt((1 + correlation**2 / 2) / (samples - 3))
    return RankReliability(
        half, correlation, growth, max(error, _of_models(single, alone, correlation))
    )


def spearman(first: Floats, second: Floats) -> float:
    """Correlation between the ranks of two columns (N,)."""
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _orders(blocks: int) -> list[Sequence[int]]:
    if blocks <= 4:
        return list(permutations(range(blocks)))
    rng = np.random.default_rng(blocks)  # drawn once and for all: the same scores, the same figure
    return [rng.permutation(blocks).tolist() for _ in range(SPLITS)]


def _of_halves(values: Floats, order: Sequence[int]) -> float:
    half = len(order) // 2
    sides = [values[:, order[at : at + half]].mean(axis=1) for at in (0, half)]
    return spearman(*sides)


def _growth(alone: float, halves: float, half: int) -> float:
    """Exponent b of r / (1 - r) ~ blocks^b, which is 1 by Spearman and Brown."""
    if not 0 < alone < halves < 1:
        return 1.0 if alone <= 0 else 0.0
    odds = [r / (1 - r) for r in (alone, halves)]
    return min(1.0, math.log(odds[1] / odds[0]) / math.log(half))


def _of_models(single: Floats, alone: float, correlation: float) -> float:
    """Standard error of z that the models add, by leaving out one block after the other.

    0 below four blocks. Of blocks that agree more or less than others, the number of samples says
    nothing. What is stepped up by f keeps its error in ln(r / (1 - r)).
    """
    blocks = len(single)
    if blocks < 4 or not 0 < alone < 1:
        return 0.0
    sums = (single.sum() - blocks) / 2 - (single.sum(axis=1) - 1)
    without = sums / ((blocks - 1) * (blocks - 2) / 2)
    error = math.sqrt((blocks - 1) * float(np.var(without)))
    return error / (alone * (1 - alone)) * correlation / (1 + correlation)
