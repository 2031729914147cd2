"""How far a ranking would repeat itself with other reference models.

In designs that come in pairs (model 2k trains on what 2k+1 left out), each pair alone gives
every sample a score. Pairs agree where the score says something about the sample, and disagree
where it says something about the models. With P pairs and a mean correlation r between them, the
score over all pairs has the reliability P r / (1 + (P - 1) r), which for two pairs is the
split-half correlation stepped up by Spearman and Brown (1910): the expected correlation with the
ranking of as many new models. The same formula with fewer or more pairs tells how the reliability
grew with the number of models, and what twice as many would bring.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from multimem_ray.design.membership import PAIRED
from multimem_ray.results.statistics import Correlation, Floats
from multimem_ray.verdict.pairs import paired

TOO_FEW = "it needs at least 4 reference models, that is two independent pairs"
ONE_TARGET = "there is one target: its training was not repeated"
NO_PAIRS = "this design has no independent pairs of models to compare"


class Reliability:
    """Agreement between pairs of models, for MultiMem and for the out-of-sample consistency.

    Args:
        kind: Kind of the membership design.
        models: Number of reference models.
        targeted: Whether MultiMem is that of a target, which stands beside them.
    """

    def __init__(self, kind: str, models: int, *, targeted: bool = False) -> None:
        self._kind, self._targeted = kind, targeted
        self._pairs = models // 2 if kind in PAIRED else 0
        self._multimem = Correlation(self._pairs)
        self._cmc_out = Correlation(self._pairs)

    def update(self, cmc: Floats, member: Floats, splits: list[str | None] | None) -> None:
        """Add rows.

        Args:
            cmc: (N, M) consistency per model, NaN where undefined.
            member: (N, M) 1 where the model trained on the sample, else 0.
            splits: Split of each row in the candidate design; only S_C is informative there.
        """
        if self._pairs < 2:
            return
        if self._kind == "candidate":
            informative = [split == "S_C" for split in splits or [None] * len(cmc)]
            both = cmc[np.array(informative, bool), : 2 * self._pairs]
            self._multimem.update(both[:, 0::2] - both[:, 1::2])
            return
        values = paired(cmc, member, self._pairs)
        # A sample outside the pool has no model that saw it: its pairs say nothing.
        keep = ~np.isnan(values).any(axis=(1, 2))
        self._multimem.update(values[keep, :, 1])
        self._cmc_out.update(values[keep, :, 0])

    def result(self) -> dict[str, Any]:
        """``multimem`` and ``cmc_out`` (None if unknown), ``pairs`` and a ``reason`` if unknown.

        ``growth`` has one row for each number of models, from one pair to all and then twice as
        many, with the reliability of either score; ``forecast`` marks what is beyond the run.
        """
        reason = None
        if self._kind not in PAIRED:
            reason = NO_PAIRS
        elif self._pairs < 2:
            reason = TOO_FEW
        elif self._targeted:
            reason = ONE_TARGET
        return {
            "multimem": stepped_up(self._of_multimem(), self._pairs),
            "cmc_out": stepped_up(self._cmc_out.mean_correlation(), self._pairs),
            "growth": self._growth(),
            "pairs": self._pairs,
            "reason": reason,
        }

    def _growth(self) -> list[dict[str, Any]]:
        means = {
            "multimem": self._of_multimem(),
            "cmc_out": self._cmc_out.mean_correlation(),
        }
        if all(mean is None for mean in means.values()):
            return []
        return [
            {
                "models": 2 * pairs,
                **{name: stepped_up(mean, pairs) for name, mean in means.items()},
                "forecast": pairs > self._pairs,
            }
            for pairs in _steps(self._pairs)
        ]

    def _of_multimem(self) -> float | None:
        return None if self._targeted else self._multimem.mean_correlation()


def stepped_up(mean: float | None, pairs: int) -> float | None:
    """Reliability of so many pairs that correlate by ``mean``; None where it has no meaning."""
    if mean is None:
        return None
    bottom = 1 + (pairs - 1) * mean
    return pairs * mean / bottom if bottom > 0 else None


def _steps(pairs: int) -> list[int]:
    """1, 2, 4, … pairs, all of them, and twice as many."""
    doubled = [1 << power for power in range(pairs.bit_length()) if 1 << power < pairs]
    return [*doubled, pairs, 2 * pairs]
