"""The exact top of any score column, whatever the size of the table.

A first pass reads only the score, shard and key, of the row groups that can hold one of the best n
by their statistics, and keeps these; a second reads full rows from just the groups in which they
lie. Files are ordered by MultiMem, so for this column it is the first group of most files. Rows
with equal scores are ordered by shard and key, so the answer does not depend on batches or on the
order of files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.errors import ConfigError
from multimem_ray.results.reader import Progress, ScoreTable
from multimem_ray.results.spans import Span, best_of_file, within

LOW_IS_SUSPICIOUS = frozenset({"cmc_in", "cmc_out"})


def largest_first(column: str) -> bool:
    """Which end of a column is the interesting one: low consistency, high everything else."""
    return column not in LOW_IS_SUSPICIOUS


def top(
    table: ScoreTable,
    column: str = "multimem",
    n: int = 24,
    *,
    largest: bool | None = None,
    columns: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The n rows with the most remarkable score, best first.

    Args:
        table: The scores of a run.
        column: A score column; rows where it is undefined are left out.
        n: How many.
        largest: Direction; by default high, but low for ``cmc_in`` and ``cmc_out``.
        columns: Columns of the returned rows (besides shard, key and the score); default all.
        progress: Called with (files done, files in total) of the first pass.

    Returns:
        At most n rows as mappings from column to value.

    Raises:
        ConfigError: There is no such column, or it holds no numbers, or n < 1.
    """
    if n < 1:
        raise ConfigError(f"the number of top samples is {n}; ask for at least 1")
    require_number(table, column)
    order = sort_keys(column, largest_first(column) if largest is None else largest)
    best = _Best(column, n, order)
    wanted = [column, "shard", "key"]
    for batch in table.batches(wanted, progress=progress, by=column, pick=best.pick):
        best.add(batch)
    if best.rows is None:
        return []
    wanted = list(dict.fromkeys([column, "shard", "key", *(columns or table.columns)]))
    return _full_rows(table, best.rows, wanted)


def sort_keys(column: str, largest: bool) -> list[tuple[str, str]]:
    """The total order of rows: the score, then shard and key."""
    return [
        (column, "descending" if largest else "ascending"),
        ("shard", "ascending"),
        ("key", "ascending"),
    ]


def require_number(table: ScoreTable, column: str) -> None:
    """Raise ConfigError unless the column exists and holds numbers."""
    table.require(column)
    if table.columns:
        kind = table.schema.field(column).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ConfigError(f"column '{column}' holds {kind}, not a score to rank by")


class _Best:
    """The best n rows of those seen so far.

    Args:
        column: Decides; rows where it is null do not take part.
        n: How many.
        order: See :func:`sort_keys`.
    """

    def __init__(self, column: str, n: int, order: list[tuple[str, str]]) -> None:
        self._column, self._n, self._order = column, n, order
        self._largest = order[0][1] == "descending"
        self.rows: pa.Table | None = None

    @property
    def worst(self) -> float | None:
        """The score to be reached; None while there are fewer than n rows."""
        rows = self.rows
        if rows is None or rows.num_rows < self._n:
            return None
        return float(rows[self._column][self._n - 1].as_py())

    def pick(self, spans: Sequence[Span | None]) -> list[int]:
        """Row groups that can hold one of the best; asked ahead, so what is known may be old."""
        worst = self.worst
        chosen = best_of_file(spans, self._n, largest=self._largest)
        if worst is None:
            return chosen
        reach = (worst, math.inf) if self._largest else (-math.inf, worst)
        return sorted({*chosen} & {*within(spans, *reach)})

    def add(self, batch: pa.RecordBatch) -> None:
        """Take what is better than the worst row so far."""
        fresh = pa.Table.from_batches([batch]).filter(pc.is_valid(batch[self._column]))
        worst = self.worst
        if worst is not None:
            # Ties with the worst kept row stay in: shard and key decide about them below.
            reaches = pc.greater_equal if self._largest else pc.less_equal
            fresh = fresh.filter(reaches(fresh[self._column], worst))
        if fresh.num_rows:
            pool = fresh if self.rows is None else pa.concat_tables([self.rows, fresh])
            best = pc.select_k_unstable(pool, self._n, self._order)
            self.rows = pool.take(best).combine_chunks()


def _full_rows(table: ScoreTable, best: pa.Table, columns: list[str]) -> list[dict[str, Any]]:
    column = columns[0]
    edges = pc.min_max(best[column]).as_py()

    def pick(spans: Sequence[Span | None]) -> list[int]:
        return within(spans, edges["min"], edges["max"])

    shards = best["shard"].to_pylist()
    keys = best["key"].to_pylist()
    place = {pair: rank for rank, pair in enumerate(zip(shards, keys, strict=True))}
    rows: dict[int, dict[str, Any]] = {}
    for batch in table.batches(columns, files=table.files_of(shards), by=column, pick=pick):
        mask = pc.is_in(batch["key"], value_set=best["key"].combine_chunks())
        for row in batch.filter(mask).to_pylist():
            rank = place.get((row["shard"], row["key"]))
            if rank is not None:
                rows[rank] = row
    return [rows[rank] for rank in sorted(rows)]
