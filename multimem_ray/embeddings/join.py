"""Joining files that do not stand alike, by the hash of the key, on disk.

A grace hash join: every row goes into one of K buckets by its key, the same for all models.

    join-<version>-<K>/model=<number>/<file>-<stretch>-<run>.arrow     rows sorted by bucket,
                                                                       one record batch for each
                                      <file>-<stretch>.done            written last

Rows are kept in memory until there are ``SPILL_BYTES`` of them, sorted by bucket and written; a
bucket is then read from all these files. What is held at once is one spill, or one bucket of all
models, whatever the number of samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multimem_ray.arrow_files import open_arrow
from multimem_ray.design.hashing import uniform
from multimem_ray.distributed.executor import Executor
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.files import Place, joined_blocks, read_blocks
from multimem_ray.embeddings.units import Unit, Units, load_units
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from multimem_ray.sample import Failure
from multimem_ray.storage import local_path
from multimem_ray.store.names import shard_id

SPILL_BYTES = 64 << 20
"""Bytes of rows that are sorted by bucket at a time."""

_READ_ROWS = 4096
_MOST_NAMED = 8


def spill_all(run: Run, units: Units, progress: Progress, executor: Executor) -> None:
    """Put whatever needs a join into its buckets. Done before = left as is."""
    folder = run.path(units.spec.join)
    there = {run.storage.name(info.url) for info in run.storage.list(folder)}
    todo = [
        {"model": model, "number": number}
        for model, places in enumerate(units.joined)
        for number, place in enumerate(places)
        if f"{_name(model, place)}.done" not in there
    ]
    if not todo:
        return
    progress.say(
        f"the files of the models do not stand alike: joining them by key in "
        f"{units.spec.buckets} buckets on disk"
    )
    with progress.task("join", len(todo), unit="files") as shown:
        for done, _ in enumerate(executor.tasks(_Spill(run), todo, retries=3), start=1):
            shown.update(done)


class _Spill:
    """The task: one stretch of one model's files."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        units = load_units(self._run)
        spill(self._run, units, row["model"], units.joined[row["model"]][row["number"]])
        return row


def spill(run: Run, units: Units, model: int, place: Place) -> None:
    """Sort the rows of a stretch by bucket, and mark it as done."""
    columns, name = units.spec.columns[model], _name(model, place)
    folder, runs = run.path(units.spec.join, f"model={model:03d}"), 0
    waiting: list[pa.RecordBatch] = []
    size = 0
    for block in read_blocks(run.storage, place, columns, _READ_ROWS):
        waiting.append(block)
        size += block.nbytes
        if size >= SPILL_BYTES:
            _write(run, units, waiting, f"{folder}/{name}-{runs:05d}.arrow")
            waiting, size, runs = [], 0, runs + 1
    if waiting:
        _write(run, units, waiting, f"{folder}/{name}-{runs:05d}.arrow")
    run.storage.write_atomic(f"{folder}/{name}.done", json.dumps({"place": place.url}).encode())


def bucket_of(keys: Sequence[str], buckets: int) -> NDArray[np.int64]:
    """(N,) the bucket of each key."""
    return np.floor(uniform(0, "join", keys) * buckets).astype(np.int64)


def _write(run: Run, units: Units, waiting: list[pa.RecordBatch], url: str) -> None:
    table = pa.Table.from_batches([joined_blocks(waiting)])
    waiting.clear()
    buckets = bucket_of(table[layout.KEY].to_pylist(), units.spec.buckets)
    order = np.argsort(buckets, kind="stable")
    ends = np.searchsorted(buckets[order], np.arange(units.spec.buckets + 1))
    with run.storage.create(url) as stream, pa.ipc.new_file(stream, table.schema) as writer:
        for number in range(units.spec.buckets):
            rows = pa.array(order[ends[number] : ends[number + 1]])
            writer.write_batch(_taken(table, rows))


def _taken(table: pa.Table, rows: pa.Array) -> pa.RecordBatch:
    batches = table.take(rows).combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def _name(model: int, place: Place) -> str:
    return f"{model:03d}-{shard_id(place.url)}-{place.first:012d}"


@dataclass(frozen=True)
class Bucket:
    """A bucket, joined.

    Args:
        keys: Of the samples that all models have, sorted.
        tables: Per model, the rows of the bucket.
        rows: Per model, the row of each key.
        failures: The other samples.
    """

    keys: pa.Array
    tables: Sequence[pa.Table]
    rows: Sequence[pa.Array]
    failures: list[Failure]


def joined_bucket(run: Run, units: Units, unit: Unit) -> Bucket:
    """Read a bucket and join it.

    Raises:
        StorageError: A spilled file cannot be read.
    """
    tables, firsts, failures = [], [], list[Failure]()
    for number, model in enumerate(run.design.model_ids()):
        table = _bucket_table(run, units, number, unit.bucket)
        codes = table[layout.KEY].combine_chunks().dictionary_encode()
        _, first = np.unique(codes.indices.to_numpy(), return_index=True)
        if len(first) < table.num_rows:
            again = np.setdiff1d(np.arange(table.num_rows), first)
            repeated = table[layout.KEY].take(pa.array(again)).to_pylist()
            failures += [_repeated(unit, key, model) for key in repeated]
        tables.append(table)
        firsts.append(pa.array(np.sort(first)))
    known = [
        table[layout.KEY].take(first).combine_chunks()
        for table, first in zip(tables, firsts, strict=True)
    ]
    every = pc.unique(pa.concat_arrays(known))
    every = every.take(pc.array_sort_indices(every))
    places = [pc.index_in(every, value_set=keys) for keys in known]
    complete = np.ones(len(every), bool)
    for place in places:
        complete &= place.is_valid().to_numpy(zero_copy_only=False)
    if not complete.all():
        failures += _missing(run, unit, every, places, complete)
    keep = pa.array(complete)
    rows = [first.take(place.filter(keep)) for first, place in zip(firsts, places, strict=True)]
    return Bucket(every.filter(keep), tables, rows, failures)


def _bucket_table(run: Run, units: Units, model: int, bucket: int) -> pa.Table:
    batches = list(_spilled(run, units, model, bucket))
    if not batches:
        schema = pa.schema([(layout.KEY, pa.large_string())])
        return schema.empty_table()
    return pa.Table.from_batches(batches).combine_chunks()


def _spilled(run: Run, units: Units, model: int, bucket: int) -> Iterator[pa.RecordBatch]:
    folder = run.path(units.spec.join, f"model={model:03d}")
    for info in run.storage.list(folder, recursive=False):
        if info.url.endswith(".arrow"):
            path = local_path(info.url)
            # Read, not mapped: pages of a map would count as memory of this process.
            source = run.storage.open(info.url) if path is None else pa.OSFile(str(path))
            with source, open_arrow(source, info.url) as file:
                batch = file.get_batch(bucket)
            if batch.num_rows:
                yield batch


def _repeated(unit: Unit, key: str, model: str) -> Failure:
    detail = f"model {model} has this key more than once; its first row is taken"
    return Failure(unit.info.url, key, None, "read", "repeated_key", detail)


def _missing(
    run: Run, unit: Unit, keys: pa.Array, places: Sequence[pa.Array], complete: NDArray[np.bool_]
) -> list[Failure]:
    ids = run.design.model_ids()
    absent = np.stack([~p.is_valid().to_numpy(zero_copy_only=False) for p in places], axis=1)
    found = []
    for at in np.flatnonzero(~complete).tolist():
        lacking = [ids[m] for m in np.flatnonzero(absent[at])]
        named = ", ".join(lacking[:_MOST_NAMED]) + (", …" if len(lacking) > _MOST_NAMED else "")
        detail = f"there is no embedding of it by model {named}; every model must have embedded it"
        key = keys[at].as_py()
        found.append(Failure(unit.info.url, key, None, "read", "missing_in_model", detail))
    return found
