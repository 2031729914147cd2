"""How far a ranking would repeat itself with other reference models.

In designs that come in pairs (model 2k trains on what 2k+1 left out) or in blocks of three folds,
each of them alone gives every sample a score. They agree where the score says something about the
sample, and disagree where it says something about the models. With P of them and a mean correlation
r between them, the scores of all pairs have the reliability P r / (1 + (P - 1) r): the expected
correlation with those of as many new models. The same formula with fewer or more pairs tells how
the reliability grew with the number of models, and what twice as many would bring. Scores correlate
as Pearson has it, of all rows; rankings as Spearman has it, of a sample of the rows that is all of
them up to :data:`MOST_RANKED`. See :mod:`multimem_ray.verdict.reliability`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.design.membership import BLOCKS
from multimem_ray.results.arrays import lists
from multimem_ray.results.statistics import Correlation, Floats
from multimem_ray.results.table import ScoreTable
from multimem_ray.verdict.pairs import paired
from multimem_ray.verdict.reliability import RankReliability, rank_reliability, stepped_up

Hashes = NDArray[np.uint64]
MOST_RANKED = 1 << 15

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
        self._block = BLOCKS.get(kind, 1)
        self._pairs = models // self._block if kind in BLOCKS else 0
        self._multimem = Correlation(self._pairs)
        self._cmc_out = Correlation(self._pairs)
        self._rows = RowSample()

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
            self._rows.update(both[:, 0::2] - both[:, 1::2])
            return
        values = paired(cmc, member, self._pairs, self._block)
        # A sample outside the pool has no model that saw it: its pairs say nothing.
        keep = ~np.isnan(values).any(axis=(1, 2))
        self._multimem.update(values[keep, :, 1])
        self._cmc_out.update(values[keep, :, 0])
        self._rows.update(values[keep].reshape(-1, 2 * self._pairs))

    @property
    def by_block(self) -> Floats:
        """(N, P, 2) ``cmc_out`` and score of the samples that are ranked, by each pair or block.

        N = 0 below two of them, and in a candidate design.
        """
        rows = self._rows.rows
        return (
            rows.reshape(-1, self._pairs, 2) if rows.size and self._whole else np.empty((0, 0, 2))
        )

    @property
    def ranked(self) -> RankReliability | None:
        """Of the ranking by MultiMem; None where it is not known."""
        if self._targeted:
            return None
        return rank_reliability(self.by_block[:, :, 1] if self._whole else self._rows.rows)

    @property
    def _whole(self) -> bool:
        """Whether pairs are known by ``cmc_out`` as well."""
        return self._kind != "candidate"

    def result(self) -> dict[str, Any]:
        """``multimem`` and ``cmc_out`` (None if unknown), ``pairs`` and a ``reason`` if unknown.

        ``ranks`` has the same of rankings: ``value`` and the 95 % interval ``low``, ``high``, and
        with ``limit`` before them the correlation with the ranking by very many models. ``growth``
        has one row for each number of models, from one pair to all and then twice as many, with the
        reliability of either score, and of the ranking by MultiMem (``ranks``); ``forecast`` marks
        what is beyond the run.
        """
        ranked = {
            "multimem": self.ranked,
            "cmc_out": rank_reliability(self.by_block[:, :, 0]),
        }
        reason = None
        if self._kind not in BLOCKS:
            reason = NO_PAIRS
        elif self._pairs < 2:
            reason = TOO_FEW
        elif self._targeted:
            reason = ONE_TARGET
        return {
            "multimem": stepped_up(self._of_multimem(), self._pairs),
            "cmc_out": stepped_up(self._cmc_out.mean_correlation(), self._pairs),
            "ranks": {name: self._told(one) for name, one in ranked.items()},
            "growth": self._growth(ranked["multimem"]),
            "pairs": self._pairs,
            "reason": reason,
        }

    def _told(self, ranked: RankReliability | None) -> dict[str, float] | None:
        value = None if ranked is None else ranked.at(self._pairs)
        if ranked is None or value is None:
            return None
        low, high = ranked.interval(self._pairs)
        told = {"value": value, "low": low, "high": high}
        limits = {f"limit_{name}": math.sqrt(max(0.0, r)) for name, r in told.items()}
        return told | {"limit": limits.pop("limit_value"), **limits}

    def _growth(self, ranked: RankReliability | None) -> list[dict[str, Any]]:
        means = {
            "multimem": self._of_multimem(),
            "cmc_out": self._cmc_out.mean_correlation(),
        }
        if all(mean is None for mean in means.values()):
            return []
        return [
            {
                "models": self._block * pairs,
                **{name: stepped_up(mean, pairs) for name, mean in means.items()},
                "ranks": ranked and ranked.at(pairs),
                "forecast": pairs > self._pairs,
            }
            for pairs in _steps(self._pairs)
        ]

    def _of_multimem(self) -> float | None:
        return None if self._targeted else self._multimem.mean_correlation()


def reliability_of(table: ScoreTable) -> Reliability:
    """The agreement between the models of a run, from its scores."""
    run = table.document("run.json")
    design = dict((run.get("config") or {}).get("design") or {})
    kind, targeted = str(design.get("kind", "complementary_halves")), bool(design.get("target"))
    columns = [c for c in ("cmc", "member", "split") if c in table.stored]
    made: Reliability | None = None
    for batch in table.batches(columns):
        cmc = lists(batch["cmc"])
        made = made or Reliability(kind, cmc.shape[1] - targeted, targeted=targeted)
        splits = batch["split"].to_pylist() if kind == "candidate" else None
        made.update(cmc, lists(batch["member"]), splits)
    return made or Reliability(kind, 0, targeted=targeted)


class RowSample:
    """Rows of a stream: all of them up to a number, then those whose content has the lowest hash.

    So what is kept depends on no order and no grouping of the rows.

    Args:
        most: Rows that are kept.
    """

    def __init__(self, most: int = MOST_RANKED) -> None:
        self._most = most
        self._rows: list[Floats] = []
        self._hashes: list[Hashes] = []
        self._waiting, self._bound = 0, np.uint64(2**64 - 1)

    def update(self, values: Floats) -> None:
        """Add (N, K) rows; those with NaN are passed over."""
        rows = values[~np.isnan(values).any(axis=1)]
        hashes = _hashed(rows)
        low = hashes <= self._bound
        self._rows.append(rows[low])
        self._hashes.append(hashes[low])
        self._waiting += int(low.sum())
        if self._waiting > 2 * self._most:
            self._cut()

    @property
    def rows(self) -> Floats:
        """(N, K) what is kept."""
        self._cut()
        return self._rows[0] if self._rows else np.empty((0, 0))

    def _cut(self) -> None:
        if not self._rows:
            return
        rows, hashes = np.concatenate(self._rows), np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")[: self._most]
        if len(rows) > self._most:
            self._bound = hashes[order[-1]]
        self._rows, self._hashes, self._waiting = [rows[order]], [hashes[order]], len(order)


def _hashed(rows: Floats) -> Hashes:
    """(N,) a number of 64 bits for each row of (N, K), by the finalizer of splitmix64."""
    z = np.zeros(len(rows), np.uint64)
    for column in np.ascontiguousarray(rows.T).view(np.uint64):
        z = (z ^ column) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z


def reliability_words(reliability: Mapping[str, Any] | None) -> list[str]:
    """What a ranking by the literal score is worth, in a sentence; none where it is not known."""
    ranks = ((reliability or {}).get("ranks") or {}).get("multimem")
    if not ranks:
        return []
    said = (
        f"ranking by MultiMem: reliability {ranks['value']:.2f} ({ranks['low']:.2f} to "
        f"{ranks['high']:.2f}): its correlation with that of as many new models; with the ranking "
        f"by very many it is {ranks['limit']:.2f} ({ranks['limit_low']:.2f} to "
        f"{ranks['limit_high']:.2f})"
    )
    return [said]


def _steps(pairs: int) -> list[int]:
    """1, 2, 4, … pairs, all of them, and twice as many."""
    doubled = [1 << power for power in range(pairs.bit_length()) if 1 << power < pairs]
    return [*doubled, pairs, 2 * pairs]
