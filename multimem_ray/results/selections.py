"""Lists of samples to remove and to keep, for the next training.

Both are written, so that what was left out can be looked at: Parquet with the reasons beside each
sample. A list can also be DataComp's ``.npy``, which its resharder reads.

    selections/<name>/remove/00000.parquet   what the rule removes
    selections/<name>/keep/00000.parquet     all other scored samples
    selections/<name>/selection.json         the rule and the counts; written last

Samples without the score (no model saw them, or all did) cannot be suspected: they are kept.
Held-out samples, and those in ``errors/``, were not scored and stand in neither list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.arrow_files import read_parquet
from multimem_ray.errors import ConfigError
from multimem_ray.results.accumulate import Floats
from multimem_ray.results.arrays import floats
from multimem_ray.results.cut import STANDARD_ERRORS, Rule, find_threshold, sketch_of
from multimem_ray.results.quantiles import QuantileSketch
from multimem_ray.results.ranking import Ranking
from multimem_ray.results.reader import ScoreTable
from multimem_ray.storage import Storage
from multimem_ray.store.schema import ATTRIBUTION

Kind = Literal["remove", "keep"]
PART_ROWS = 1_000_000
UID = re.compile(r"[0-9a-fA-F]{32}")
UID_TYPE = np.dtype("u8,u8")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN = ("key", "shard", "index", "label")


@dataclass(frozen=True)
class Selection:
    """What was written.

    Attributes:
        folder: ``<output>/selections/<name>``.
        parts: URLs of the files of each list.
        counts: ``removed``, ``kept``, and ``without_score`` among the kept.
    """

    folder: str
    parts: Mapping[Kind, Sequence[str]]
    counts: Mapping[str, int]


def cut_at(
    table: ScoreTable, ranking: Ranking, *, n: int | None = None, fraction: float | None = None
) -> Rule:
    """The rule that removes so many samples, or so large a share of those with the score.

    Raises:
        ConfigError: Not exactly one of both is given, or it is not possible.
    """
    if (n is None) == (fraction is None):
        raise ConfigError("a selection needs either a number of samples or a fraction")
    if fraction is not None and not 0 < fraction <= 1:
        raise ConfigError(f"a selection of fraction {fraction} is not possible: 0 < fraction <= 1")
    sketch = sketch_of(table, ranking)
    size = n if n is not None else max(1, round((fraction or 0.0) * sketch.count))
    return find_threshold(table, ranking, size, sketch)


def write_selection(
    table: ScoreTable, name: str, rule: Rule, about: Mapping[str, Any] | None = None
) -> Selection:
    """Write both lists; those of an earlier selection of this name are replaced.

    Columns: key, shard, index, label (if there is one), score (what was ranked by), se (if it has
    one), percentile (0..100 among all rows with the score), multimem, cmc_out,
    attribution_<modality>…, and main_modality, the one that adds most to MultiMem.

    Args:
        table: The scores of a run.
        name: Letters, digits, and ``._-``.
        rule: What is removed.
        about: How the rule came about, for ``selection.json``.

    Raises:
        ConfigError: The name is none.
        StorageError: A file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"selection '{name}': use letters, digits, and ._- in its name")
    storage = table.storage
    folder = storage.join(table.output, "selections", name)
    storage.remove(folder, recursive=True)
    lists: dict[Kind, _List] = {
        "remove": _List(storage, storage.join(folder, "remove")),
        "keep": _List(storage, storage.join(folder, "keep")),
    }
    sketch, without = sketch_of(table, rule.ranking), 0
    for batch in table.batches(_columns(table, rule)):
        removed = rule.removes(batch)
        rows = _reasons(table, batch, rule.ranking, sketch)
        without += rows["score"].null_count
        lists["remove"].add(rows.filter(pa.array(removed)))
        lists["keep"].add(rows.filter(pa.array(~removed)))
    parts: dict[Kind, Sequence[str]] = {kind: found.close() for kind, found in lists.items()}
    counts = {
        "removed": lists["remove"].rows,
        "kept": lists["keep"].rows,
        "without_score": without,
    }
    content = {"by": rule.ranking.name, **(about or {}), **counts}
    text = json.dumps(content, indent=1).encode()
    storage.write_atomic(storage.join(folder, "selection.json"), text)
    return Selection(folder, parts, counts)


def write_datacomp(storage: Storage, parts: Sequence[str], url: str) -> int:
    """Write a list as DataComp's sorted ``.npy`` of dtype ``u8,u8``.

    Each sample must be known by a uid of 32 hexadecimal digits: its key, or the last part of it.

    Args:
        storage: Where everything lies.
        parts: Files of one list.
        url: Where the array goes.

    Returns:
        Number of uids.

    Raises:
        ConfigError: A key is no such uid; names it.
    """
    halves: list[npt.NDArray[np.void]] = []
    for part in parts:
        keys = read_parquet(storage.read_bytes(part), part, ["key"])["key"].to_pylist()
        halves.append(np.array([_uid(key) for key in keys], dtype=UID_TYPE))
    uids = np.sort(np.concatenate(halves)) if halves else np.empty(0, UID_TYPE)
    buffer = BytesIO()
    np.save(buffer, uids, allow_pickle=False)
    storage.write_atomic(url, buffer.getvalue())
    return len(uids)


class _List:
    """Parts of a list, each atomic and at most about a million rows long."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        self._waiting: list[pa.RecordBatch] = []
        self._urls: list[str] = []
        self.rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        self.rows += rows.num_rows
        self._waiting.append(rows)
        if sum(batch.num_rows for batch in self._waiting) >= PART_ROWS:
            self._write()

    def close(self) -> list[str]:
        if self._waiting or not self._urls:
            self._write()
        return self._urls

    def _write(self) -> None:
        empty = pa.schema([("key", pa.string()), ("shard", pa.string()), ("score", pa.float64())])
        waiting = self._waiting
        whole = pa.Table.from_batches(waiting) if waiting else empty.empty_table()
        buffer = BytesIO()
        pq.write_table(whole, buffer, compression="zstd")
        url = self._storage.join(self._folder, f"{len(self._urls):05d}.parquet")
        self._storage.write_atomic(url, buffer.getvalue())
        self._urls.append(url)
        self._waiting = []


def _columns(table: ScoreTable, rule: Rule) -> list[str]:
    known = set(table.columns)
    shown = (*_PLAIN, "multimem", "cmc_out", STANDARD_ERRORS.get(rule.ranking.name, ""))
    parts = [f"{ATTRIBUTION}{m}" for m in table.modalities]
    return list(dict.fromkeys([*(c for c in shown if c in known), *rule.columns, *parts]))


def _reasons(
    table: ScoreTable, batch: pa.RecordBatch, ranking: Ranking, sketch: QuantileSketch
) -> pa.RecordBatch:
    parts = [f"{ATTRIBUTION}{m}" for m in table.modalities]
    known = set(batch.schema.names)
    values = ranking.values(batch)
    fields: dict[str, Any] = {c: batch[c] for c in _PLAIN if c in known}
    fields["score"] = _doubles(values)
    if ranking.name in STANDARD_ERRORS:
        fields["se"] = batch[STANDARD_ERRORS[ranking.name]]
    fields["percentile"] = _doubles(sketch.percentiles(values))
    fields |= {c: batch[c] for c in ("multimem", "cmc_out") if c in known}
    matrix = np.stack([floats(batch[c]) for c in parts], axis=1)
    fields |= {c: batch[c] for c in parts}
    fields["main_modality"] = _main(matrix, table.modalities)
    return pa.RecordBatch.from_pydict(fields)


def _main(matrix: Floats, names: tuple[str, ...]) -> pa.Array:
    nothing = np.isnan(matrix).all(axis=1)
    best = np.where(np.isnan(matrix), -np.inf, matrix).argmax(axis=1)
    return pa.array(np.array(names, dtype=object)[best], pa.string(), mask=nothing)


def _doubles(values: Floats) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _uid(key: str) -> tuple[int, int]:
    name = key.rpartition("/")[2]
    if UID.fullmatch(name) is None:
        raise ConfigError(
            f"key '{key}' is no uid of 32 hexadecimal digits, which DataComp's lists need; use the "
            "Parquet selection, or name the samples by their uid"
        )
    return int(name[:16], 16), int(name[16:], 16)
