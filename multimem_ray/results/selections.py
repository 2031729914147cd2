"""Lists of samples to remove or to keep, for the next training.

Any column can rank; the n most suspicious rows are removed and the others kept, exactly, with
ties decided by shard and key. The cut is found in bounded memory for any n: a first pass brackets
it with a quantile sketch, a second collects only the rows inside the bracket (Munro and Paterson
1980), a third writes. Lists are Parquet with the reasons beside each sample; a keep-list can also
be DataComp's ``.npy``, which its resharder reads.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multimem_ray.errors import ConfigError
from multimem_ray.results.accumulate import Floats
from multimem_ray.results.arrays import floats
from multimem_ray.results.quantiles import QuantileSketch
from multimem_ray.results.reader import ATTRIBUTION, ScoreTable
from multimem_ray.results.spans import Span, within
from multimem_ray.results.top import largest_first, require_number, sort_keys

Kind = Literal["remove", "keep"]
PART_ROWS = 1_000_000
UID = re.compile(r"[0-9a-fA-F]{32}")
UID_TYPE = np.dtype("u8,u8")


@dataclass(frozen=True)
class Cut:
    """Where a ranking is cut: the last row that is removed, in the order of the ranking."""

    column: str
    largest: bool
    value: float
    shard: str
    key: str

    def reaches(self, spans: Sequence[Span | None]) -> list[int]:
        """Row groups with a row that ranks at or before the cut."""
        ends = (self.value, math.inf) if self.largest else (-math.inf, self.value)
        return within(spans, *ends)

    def removes(self, batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Which rows rank at or before the cut; rows without a score never do."""
        values = floats(batch[self.column])
        with np.errstate(invalid="ignore"):
            beyond = values > self.value if self.largest else values < self.value
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


def find_cut(table: ScoreTable, column: str, n: int, *, largest: bool | None = None) -> Cut:
    """The n-th row of the ranking by a column.

    Raises:
        ConfigError: There is no such column, or it is defined for fewer than n rows.
    """
    return _cut(table, column, n, _sketch(table, column), largest)


def _sketch(table: ScoreTable, column: str) -> QuantileSketch:
    require_number(table, column)
    sketch = QuantileSketch()
    for batch in table.batches([column]):
        sketch.update(floats(batch[column]))
    return sketch


def _cut(
    table: ScoreTable, column: str, n: int, sketch: QuantileSketch, largest: bool | None
) -> Cut:
    direction = largest_first(column) if largest is None else largest
    if not 1 <= n <= sketch.count:
        raise ConfigError(
            f"a list of {n} samples by '{column}' is not possible: the score is defined for "
            f"{sketch.count} samples; ask for 1 to {sketch.count}"
        )
    margin = 2 * sketch.rank_error
    while True:
        middle = 1 - n / sketch.count if direction else n / sketch.count
        edges = (max(0.0, middle - margin), min(1.0, middle + margin))
        low, high = sketch.quantiles(edges)
        low, high = _open_end(low, high, edges)
        row = _collect(table, column, n, (low, high), direction)
        if row is not None:
            return Cut(column, direction, float(row[column]), str(row["shard"]), str(row["key"]))
        margin = max(4 * margin, 1e-3)


def write_selection(
    table: ScoreTable,
    name: str,
    *,
    by: str = "multimem",
    n: int | None = None,
    fraction: float | None = None,
    kind: Kind = "remove",
    largest: bool | None = None,
) -> list[str]:
    """Write ``selections/<name>/<part>.parquet`` under the run's output.

    Columns: key, shard, index, label (if there is one), score, se, percentile (0..100 among all
    rows with a score), attribution_<modality>…, and main_modality, the one that adds most.

    Args:
        table: The scores of a run.
        name: Name of the list, such as ``remove``.
        by: Column that ranks.
        n: How many samples are removed.
        fraction: The same as a share of the samples that have the score.
        kind: Write the removed samples, or the others; others include those without the score.
        largest: Which end is removed; by default high, but low for ``cmc_in`` and ``cmc_out``.

    Returns:
        URLs of the parts, each atomic, at most a million rows long; those of an earlier list with
        this name are replaced.

    Raises:
        ConfigError: The list asked for is not possible.
        StorageError: A file cannot be read or written.
    """
    sketch = _sketch(table, by)
    cut = _cut(table, by, _size(n, fraction, sketch.count), sketch, largest)
    folder = table.storage.join(table.output, "selections", name)
    table.storage.remove(folder, recursive=True)
    urls: list[str] = []
    waiting: list[pa.RecordBatch] = []
    for batch in _selected(table, cut, kind, sketch):
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= PART_ROWS:
            urls.append(_write_part(table, folder, len(urls), waiting))
            waiting = []
    if waiting or not urls:
        urls.append(_write_part(table, folder, len(urls), waiting))
    return urls


def write_datacomp(table: ScoreTable, selection: list[str], url: str) -> int:
    """Write a selection as DataComp's sorted ``.npy`` of dtype ``u8,u8``.

    Each sample must be known by a uid of 32 hexadecimal digits: its key, or the last part of it.

    Args:
        table: The table that the selection was made from.
        selection: What :func:`write_selection` returned.
        url: Where the array goes.

    Returns:
        Number of uids.

    Raises:
        ConfigError: A key is no such uid; names it.
    """
    halves: list[npt.NDArray[np.void]] = []
    for part in selection:
        with table.storage.open(part) as file:
            keys = pq.read_table(file, columns=["key"])["key"].to_pylist()
        halves.append(np.array([_uid(key) for key in keys], dtype=UID_TYPE))
    uids = np.sort(np.concatenate(halves)) if halves else np.empty(0, UID_TYPE)
    buffer = BytesIO()
    np.save(buffer, uids, allow_pickle=False)
    table.storage.write_atomic(url, buffer.getvalue())
    return len(uids)


def _uid(key: str) -> tuple[int, int]:
    name = key.rpartition("/")[2]
    if UID.fullmatch(name) is None:
        raise ConfigError(
            f"key '{key}' is no uid of 32 hexadecimal digits, which DataComp's lists need; use the "
            "Parquet selection, or name the samples by their uid"
        )
    return int(name[:16], 16), int(name[16:], 16)


def _size(n: int | None, fraction: float | None, count: int) -> int:
    if (n is None) == (fraction is None):
        raise ConfigError("a selection needs either a number of samples or a fraction")
    if n is not None:
        return n
    if fraction is None or not 0 < fraction <= 1:
        raise ConfigError(f"a selection of fraction {fraction} is not possible: 0 < fraction <= 1")
    return max(1, round(fraction * count))


def _open_end(low: float, high: float, edges: tuple[float, float]) -> tuple[float, float]:
    """The bracket reaches to infinity where it touches an end of the ranking."""
    return (-np.inf if edges[0] <= 0 else low), (np.inf if edges[1] >= 1 else high)


def _collect(
    table: ScoreTable, column: str, n: int, bracket: tuple[float, float], largest: bool
) -> dict[str, Any] | None:
    """The n-th row if it lies in the bracket; else None."""
    low, high = bracket
    beyond = _Beyond(low, high, largest)
    before = 0
    inside: list[pa.RecordBatch] = []
    for batch in table.batches([column, "shard", "key"], by=column, pick=beyond.pick):
        values = floats(batch[column])
        with np.errstate(invalid="ignore"):
            before += int((values > high).sum() if largest else (values < low).sum())
            keep = (values >= low) & (values <= high)
        if keep.any():
            inside.append(batch.filter(pa.array(keep)))
    before += beyond.rows
    rows = pa.Table.from_batches(inside) if inside else None
    place = n - 1 - before
    if rows is None or not 0 <= place < rows.num_rows:
        return None
    order = pc.select_k_unstable(rows, place + 1, sort_keys(column, largest))
    row: dict[str, Any] = rows.take(order[place:]).to_pylist()[0]
    return row


class _Beyond:
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


def _selected(
    table: ScoreTable, cut: Cut, kind: Kind, sketch: QuantileSketch
) -> Iterator[pa.RecordBatch]:
    known = set(table.columns)
    parts = [f"{ATTRIBUTION}{m}" for m in table.modalities]
    plain = [c for c in ("key", "shard", "index", "label") if c in known]
    se = ["multimem_se"] if cut.column == "multimem" else []
    columns = list(dict.fromkeys([*plain, cut.column, *se, *parts]))
    pick = cut.reaches if kind == "remove" else None
    for batch in table.batches(columns, by=cut.column, pick=pick):
        removed = cut.removes(batch)
        rows = batch.filter(pa.array(removed if kind == "remove" else ~removed))
        if not rows.num_rows:
            continue
        values = floats(rows[cut.column])
        fields: dict[str, Any] = {c: rows[c] for c in plain}
        fields["score"] = _doubles(values)
        fields["se"] = _doubles(floats(rows[se[0]]) if se else np.full(len(values), np.nan))
        fields["percentile"] = _doubles(sketch.percentiles(values))
        matrix = np.stack([floats(rows[c]) for c in parts], axis=1)
        fields |= {c: _doubles(matrix[:, i]) for i, c in enumerate(parts)}
        fields["main_modality"] = _main(matrix, table.modalities)
        yield pa.RecordBatch.from_pydict(fields)


def _main(matrix: Floats, names: tuple[str, ...]) -> pa.Array:
    nothing = np.isnan(matrix).all(axis=1)
    best = np.where(np.isnan(matrix), -np.inf, matrix).argmax(axis=1)
    return pa.array(np.array(names, dtype=object)[best], pa.string(), mask=nothing)


def _doubles(values: Floats) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _write_part(table: ScoreTable, folder: str, number: int, rows: list[pa.RecordBatch]) -> str:
    url = table.storage.join(folder, f"{number:05d}.parquet")
    buffer = BytesIO()
    empty = pa.schema([("key", pa.string()), ("shard", pa.string()), ("score", pa.float64())])
    whole = pa.Table.from_batches(rows) if rows else empty.empty_table()
    pq.write_table(whole, buffer, compression="zstd")
    table.storage.write_atomic(url, buffer.getvalue())
    return url
