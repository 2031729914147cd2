"""What is made of a shard's samples once they are decoded: their scores, or their embeddings.

Reading, decoding, views, parts, careful attempts and commits are the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import pyarrow as pa

from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank, Views
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import Identity, schema_of, score_rows


@dataclass(frozen=True)
class ScoringBatch:
    """B samples of a shard, and the models that are to make something of them.

    Args:
        held_out: Mean vectors of the held-out set, and with a target its levels.
    """

    run: Run
    bank: ScoringBank
    held_out: HeldOutStatistics
    shard: str
    who: Identity
    views: Views

    def __iter__(self) -> Iterator[ScoringBatch]:
        """Each of the samples alone."""
        for row in range(len(self.who.keys)):
            yield replace(self, who=self.who.at(row), views=self.views.at(row))


class Output(Protocol):
    """Makes a table row of each sample."""

    keeps_held_out: ClassVar[bool]
    """Whether held-out samples get a row, too."""

    def schema(self, run: Run) -> pa.Schema:
        """Columns of the rows."""

    def rows(self, lot: ScoringBatch) -> pa.Table:
        """One row for each of the samples."""


class Scores:
    """MultiMem and all that belongs to it; see :mod:`multimem_ray.scoring.rows`."""

    keeps_held_out: ClassVar[bool] = False

    def schema(self, run: Run) -> pa.Schema:
        """See :class:`Product`."""
        return schema_of(run)

    def rows(self, lot: ScoringBatch) -> pa.Table:
        """See :class:`Product`."""
        found = lot.bank.agreements(lot.views, lot.held_out.means)
        present, levels = lot.views.present, lot.held_out.levels
        return score_rows(lot.run, lot.shard, lot.who, present, found, levels)


SCORES = Scores()
