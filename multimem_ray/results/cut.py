"""Where a ranking is cut: what lies beyond is removed, the rest is kept.

The n most suspicious samples, exactly, with ties decided by shard and key; or all those whose
score is beyond a value by so many of their standard errors. The n-th sample is found in bounded
memory for any n: a first pass brackets it with a quantile sketch, a second collects only the rows
inside the bracket (Munro and Paterson 1980).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.errors import ConfigError
from multimem_ray.results.arrays import floats
from multimem_ray.results.quantiles import QuantileSketch
from multimem_ray.results.ranking import Ranking
from multimem_ray.results.reader import ScoreTable
from multimem_ray.results.spans import Span, within
from multimem_ray.results.top import sort_keys

STANDARD_ERRORS = {"multimem": "multimem_se"}
_VALUE = "ranked value"


class Rule(Protocol):
    """Says which rows are removed."""

    @property
    def ranking(self) -> Ranking:
        """What the rows are ranked by."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Score columns that it needs, beside shard and key."""
        ...

    def removes(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Which rows of a batch are removed."""
        ...


@dataclass(frozen=True)
class TopN:
    """The last row that is removed, in the order of the ranking."""

    ranking: Ranking
    value: float
    shard: str
    key: str

    @property
    def columns(self) -> tuple[str, ...]:
        """See :class:`Rule`."""
        return self.ranking.columns

    def removes(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Which rows rank at or before the cut; rows without a score never do."""
        values = self.ranking.values(batch)
        with np.errstate(invalid="ignore"):
            beyond = values > self.value if self.ranking.largest else values < self.value
        tied = np.flatnonzero(values == self.value)
        if len(tied):
            shards, keys = (
                batch["shard"].take(tied).to_pylist(),
                batch["key"].take(tied).to_pylist(),
            )
            limit = (self.shard.encode(), self.key.encode())
            for row, shard, key in zip(tied.tolist(), shards, keys, strict=True):
                beyond[row] = (shard.encode(), key.encode()) <= limit
        return np.asarray(beyond)


@dataclass(frozen=True)
class AboveThreshold:
    """Scores beyond a value by ``margin`` of their standard errors.

    With a margin, rows without a standard error (fewer than two models on a side) are not removed:
    nothing says how sure their score is.
    """

    ranking: Ranking
    value: float
    margin: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        """See :class:`Rule`."""
        se = [STANDARD_ERRORS[self.ranking.name]] if self.margin else []
        return (*self.ranking.columns, *se)

    def removes(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Which rows are beyond the value for sure; rows without a score never are."""
        values = self.ranking.values(batch)
        if self.margin:
            slack = self.margin * floats(batch[STANDARD_ERRORS[self.ranking.name]])
            values = values - slack if self.ranking.largest else values + slack
        with np.errstate(invalid="ignore"):
            return np.asarray(
                values > self.value if self.ranking.largest else values < self.value, bool
            )


def beyond(ranking: Ranking, value: float, margin: float = 0.0) -> AboveThreshold:
    """See :class:`Beyond`.

    Raises:
        ConfigError: A margin is asked for, and the score has no standard error.
    """
    if margin < 0 or (margin and ranking.name not in STANDARD_ERRORS):
        raise ConfigError(
            f"a margin of {margin} standard errors by '{ranking.name}' is not possible: give one "
            f"above 0, by {' or '.join(STANDARD_ERRORS)}"
        )
    return AboveThreshold(ranking, value, margin)


def sketch_of(table: ScoreTable, ranking: Ranking) -> QuantileSketch:
    """Quantiles of a ranking, over all rows that have it."""
    sketch = QuantileSketch()
    for batch in table.batches(_columns(ranking)):
        sketch.update(ranking.values(batch))
    return sketch


def find_threshold(
    table: ScoreTable, ranking: Ranking, n: int, sketch: QuantileSketch | None = None
) -> TopN:
    """The n-th row of a ranking.

    Raises:
        ConfigError: It is defined for fewer than n rows.
    """
    sketch = sketch or sketch_of(table, ranking)
    if not 1 <= n <= sketch.count:
        raise ConfigError(
            f"a list of {n} samples by '{ranking.name}' is not possible: the score is defined for "
            f"{sketch.count} samples; ask for 1 to {sketch.count}"
        )
    margin = 2 * sketch.rank_error
    while True:
        middle = 1 - n / sketch.count if ranking.largest else n / sketch.count
        edges = (max(0.0, middle - margin), min(1.0, middle + margin))
        low, high = sketch.quantiles(edges)
        low, high = _open_end(low, high, edges)
        row = _collect(table, ranking, n, (low, high))
        if row is not None:
            return TopN(ranking, float(row[_VALUE]), str(row["shard"]), str(row["key"]))
        margin = max(4 * margin, 1e-3)


def _open_end(low: float, high: float, edges: tuple[float, float]) -> tuple[float, float]:
    """The bracket reaches to infinity where it touches an end of the ranking."""
    return (-np.inf if edges[0] <= 0 else low), (np.inf if edges[1] >= 1 else high)


def _collect(
    table: ScoreTable, ranking: Ranking, n: int, bracket: tuple[float, float]
) -> dict[str, Any] | None:
    """The n-th row if it lies in the bracket; else None."""
    low, high = bracket
    before = 0
    inside: list[pa.Table] = []
    outside = _Outside(low, high, ranking.largest)
    pick = outside.pick if ranking.column else None
    for batch in table.batches(_columns(ranking), by=ranking.column, pick=pick):
        values = ranking.values(batch)
        with np.errstate(invalid="ignore"):
            before += int((values > high).sum() if ranking.largest else (values < low).sum())
            keep = np.flatnonzero((values >= low) & (values <= high))
        if len(keep):
            columns = {name: batch[name].take(keep) for name in ("shard", "key")}
            inside.append(pa.table({_VALUE: values[keep], **columns}))
    before += outside.rows
    rows = pa.concat_tables(inside) if inside else None
    place = n - 1 - before
    if rows is None or not 0 <= place < rows.num_rows:
        return None
    order = pc.select_k_unstable(rows, place + 1, sort_keys(_VALUE, ranking.largest))
    row: dict[str, Any] = rows.take(order[place:]).to_pylist()[0]
    return row


class _Outside:
    """Leaves out row groups that lie outside of a bracket, and counts the rows before it."""

    def __init__(self, low: float, high: float, largest: bool) -> None:
        self._low, self._high, self._largest = low, high, largest
        self._lock = threading.Lock()
        self.rows = 0

    def pick(self, spans: Sequence[Span | None]) -> list[int]:
        """See :data:`multimem_ray.results.spans.Pick`."""
        chosen = within(spans, self._low, self._high)
        skipped = [s for at, s in enumerate(spans) if s is not None and at not in chosen]
        before = sum(
            s.valid
            for s in skipped
            if s.valid and (s.low > self._high if self._largest else s.high < self._low)
        )
        with self._lock:
            self.rows += before
        return chosen


def _columns(ranking: Ranking) -> list[str]:
    return list(dict.fromkeys([*ranking.columns, "shard", "key"]))
