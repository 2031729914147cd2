"""What is made of a shard's samples once they are decoded: their scores, or their embeddings.

Reading, decoding, views, parts, careful attempts and commits are the same for both.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import pyarrow as pa

from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank, Views
from multimem_ray.scoring.rows import Identity, score_rows, score_schema
from multimem_ray.scoring.statistics import HeldOutStatistics


class Product(Protocol):
    """Makes a table row of each sample."""

    keeps_held_out: ClassVar[bool]
    """Whether held-out samples get a row, too."""

    def schema(self, run: Run) -> pa.Schema:
        """Columns of the rows."""

    def rows(
        self,
        run: Run,
        bank: ScoringBank,
        held_out: HeldOutStatistics,
        shard: str,
        who: Identity,
        views: Views,
    ) -> pa.Table:
        """One row for each of B samples of a shard.

        Args:
            held_out: Mean vectors of the held-out set, and with a target its levels.
        """


class Scores:
    """MultiMem and all that belongs to it; see :mod:`multimem_ray.scoring.rows`."""

    keeps_held_out: ClassVar[bool] = False

    def schema(self, run: Run) -> pa.Schema:
        """See :class:`Product`."""
        return score_schema(run)

    def rows(
        self,
        run: Run,
        bank: ScoringBank,
        held_out: HeldOutStatistics,
        shard: str,
        who: Identity,
        views: Views,
    ) -> pa.Table:
        """See :class:`Product`."""
        found = bank.agreements(views, held_out.means)
        return score_rows(run, shard, who, views.present, found, held_out.levels)


SCORES = Scores()
