"""Which row groups of a Parquet file can matter for a ranking, by their statistics alone.

A group is left out only if none of its rows can: with equal values shard and key decide, so a
group that reaches a threshold is read. Groups without statistics are always read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq


@dataclass(frozen=True)
class Span:
    """The values of a column in a row group: ``valid`` of them, from ``low`` to ``high``.

    Without a valid value, ``low`` and ``high`` are 0 and mean nothing.
    """

    low: float
    high: float
    valid: int


Pick = Callable[[Sequence[Span | None]], Sequence[int]]
"""Given the spans of a file's groups (None = unknown), the numbers of those to be read."""


def spans_of(metadata: pq.FileMetaData, column: str) -> list[Span | None]:
    """The spans of a column of numbers in each row group of a file."""
    place = next(
        (i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column), None
    )
    groups = range(metadata.num_row_groups)
    return [None if place is None else _span(metadata.row_group(g).column(place)) for g in groups]


def _span(chunk: pq.ColumnChunkMetaData) -> Span | None:
    found = chunk.statistics
    if found is None or not found.has_null_count:
        return None
    valid = chunk.num_values - found.null_count
    if valid == 0:
        return Span(0.0, 0.0, 0)
    return Span(found.min, found.max, valid) if found.has_min_max else None


def best_of_file(spans: Sequence[Span | None], n: int, *, largest: bool) -> list[int]:
    """Groups that can hold one of the file's n best rows."""
    return [at for at, span in enumerate(spans) if span is None or _can(span, spans, n, largest)]


def _can(span: Span, spans: Sequence[Span | None], n: int, largest: bool) -> bool:
    better = sum(
        other.valid
        for other in spans
        if other is not None
        and other.valid
        and (other.low > span.high if largest else other.high < span.low)
    )
    return span.valid > 0 and better < n


def within(spans: Sequence[Span | None], low: float, high: float) -> list[int]:
    """Groups that can hold a value from ``low`` to ``high``, both included."""
    return [
        at
        for at, span in enumerate(spans)
        if span is None or (span.valid and span.high >= low and span.low <= high)
    ]
