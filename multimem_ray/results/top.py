"""The exact top of any score column, whatever the size of the table.

A first query ranks by the score, then shard and key; a second reads full rows of just the best.
Files are ordered by MultiMem with statistics for each row group, so that by a stored column DuckDB
reads little of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from multimem_ray.errors import ConfigError
from multimem_ray.results.table import Progress, ScoreTable

LOW_IS_SUSPICIOUS = frozenset({"cmc_in", "cmc_out", "multimem_q"})


def largest_first(column: str) -> bool:
    """Which end of a column is the interesting one: low consistency, high everything else."""
    return column not in LOW_IS_SUSPICIOUS


def top(
    table: ScoreTable,
    column: str | None = None,
    n: int = 24,
    *,
    largest: bool | None = None,
    columns: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The n rows with the most remarkable score, best first.

    Args:
        table: The scores of a run.
        column: A score column; rows where it is undefined are left out. By default the shrunk
            score, where there are pairs enough for one, else the literal one.
        n: How many.
        largest: Direction; by default high, but low for ``cmc_in`` and ``cmc_out``.
        columns: Columns of the returned rows (besides shard, key and the score); default all.
        progress: Called with (files done, files in total) when the best are known.

    Returns:
        At most n rows as mappings from column to value.

    Raises:
        ConfigError: There is no such column, or it holds no numbers, or n < 1.
    """
    if n < 1:
        raise ConfigError(f"the number of top samples is {n}; ask for at least 1")
    column = column or table.verdict.ranks_by
    require_number(table, column)
    score = quoted(column)
    order = f"ORDER BY {score} {direction(column, largest)}, shard, key"
    ranked = f"SELECT {score}, shard, key FROM scores WHERE {score} IS NOT NULL {order} LIMIT {n}"
    best = list(table.stream(ranked, [column, "shard", "key"]))
    if progress is not None:
        progress(len(table.score_files), len(table.score_files))
    if not best:
        return []
    shown = list(dict.fromkeys([column, "shard", "key", *(columns or table.columns)]))
    whole = pa.Table.from_batches(best)
    return table.query(
        f"SELECT {', '.join(map(quoted, shown))} FROM scores "
        f"SEMI JOIN best USING ({score}, shard, key) {order}",
        shown,
        files=table.files_of(whole["shard"].unique().to_pylist()),
        tables={"best": whole},
    )


def quoted(column: str) -> str:
    """A column's name in SQL."""
    return '"' + column.replace('"', '""') + '"'


def direction(column: str, largest: bool | None) -> str:
    """``DESC`` where high is remarkable."""
    return "DESC" if (largest_first(column) if largest is None else largest) else "ASC"


def require_number(table: ScoreTable, column: str) -> None:
    """Raise ConfigError unless the column exists and holds numbers."""
    table.require(column)
    if table.columns:
        kind = table.schema.field(column).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise ConfigError(f"column '{column}' holds {kind}, not a score to rank by")
