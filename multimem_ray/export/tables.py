"""Scored rows as CSV, JSON lines or Parquet, streamed: any number of them, in bounded memory.

Rows come in the order of the shards, and in each by MultiMem; with ``top``, the most memorized
alone, best first. CSV has no lists: modalities are joined by ``+``, and the lists that hold a value
for each model stand in JSON and Parquet only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.results.joined import CatalogueJoin
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top as best
from multimem_ray.store.names import shard_id

Kind: TypeAlias = Literal["csv", "json", "parquet"]
JOINED = "+"
_PLACE = ("shard", "index")


@dataclass(frozen=True)
class TableFile:
    """A table that was written.

    Attributes:
        url: Where.
        rows: How many.
        schema: Columns and types.
        size: Bytes.
        sha256: Of the bytes.
        missed: Rows that could not be joined with the catalogue.
        absent: JSON fields that none of the rows has.
    """

    url: str
    rows: int
    schema: pa.Schema
    size: int
    sha256: str
    missed: int = 0
    absent: Sequence[str] = ()


@dataclass(frozen=True)
class Asked:
    """Which rows and columns are written.

    Args:
        columns: Of the scores; () for all.
        fields: JSON fields, read from the shards if they were not catalogued.
        top: So many, the most memorized; None for all.
    """

    columns: Sequence[str] = ()
    fields: Sequence[str] = ()
    top: int | None = None


def write_table(
    table: ScoreTable, url: str, kind: Kind, asked: Asked, progress: Progress | None = None
) -> TableFile:
    """Write scored rows to one file, which is whole or absent.

    Args:
        table: The scores of a run.
        url: Where the file goes.
        kind: Its format.
        asked: Which rows and columns.
        progress: Told while shards have to be read.

    Raises:
        ConfigError: Nothing is scored, or there is no such column.
        StorageError: Something cannot be read or written.
    """
    if not table.score_files:
        raise ConfigError(f"{table.output}: nothing is scored yet; run `multimem audit` first")
    columns = _columns(table, kind, asked.columns)
    names = [name if name.startswith("json.") else f"json.{name}" for name in asked.fields]
    join = CatalogueJoin(table, list(dict.fromkeys(names)))
    if names:
        join.prepare(progress)
    fields = [table.schema.field(name) for name in columns]
    schema = pa.schema([*fields, *(pa.field(name, pa.string()) for name in join.fields)])
    rows, absent = 0, dict.fromkeys(join.fields)
    with table.storage.create(url) as stream:
        hashing = _Hashing(stream)
        with _WRITERS[kind](hashing, schema) as writer:
            for batch in _batches(table, columns, join, asked.top):
                writer.write(batch.select(schema.names).cast(schema))
                rows += len(batch)
                for name in [n for n in absent if batch[n].null_count < len(batch)]:
                    del absent[name]
    told = hashing.digest.hexdigest()
    return TableFile(url, rows, schema, hashing.size, told, join.missed, tuple(absent))


def _columns(table: ScoreTable, kind: Kind, columns: Sequence[str]) -> list[str]:
    table.require(*columns)
    per_model = [name for name in ("cmc", "member") if name in table.columns]
    if kind != "csv":
        return list(columns) or table.columns
    lists = [name for name in columns if name in per_model]
    if lists:
        raise ConfigError(f"column '{lists[0]}' is a list, unknown to CSV: write json or parquet")
    return list(columns) or [name for name in table.columns if name not in per_model]


def _batches(
    table: ScoreTable, columns: Sequence[str], join: CatalogueJoin, top: int | None
) -> Iterator[pa.RecordBatch]:
    needed = list(dict.fromkeys([*columns, *(_PLACE if join.fields else ())]))
    if top is None:
        rows = table.batches(needed)
        yield from join.beside(rows) if join.fields else rows
        return
    needed = list(dict.fromkeys([*needed, *_PLACE]))
    schema = pa.schema([table.schema.field(name) for name in needed])
    told = [{name: row[name] for name in needed} for row in best(table, None, top, columns=needed)]
    ranked = pa.Table.from_pylist(told, schema)
    if join.fields:
        ranked = _joined(ranked, join)
    yield from ranked.to_batches()


def _joined(ranked: pa.Table, join: CatalogueJoin) -> pa.Table:
    """Rows in their order, with the fields: the catalogue is read once for each of their shards."""
    placed = ranked.append_column("place", pa.array(range(len(ranked))))
    shards = sorted(ranked["shard"].unique().to_pylist(), key=shard_id)
    parts = (placed.filter(pc.equal(placed["shard"], name)).combine_chunks() for name in shards)
    batches = [batch for part in parts for batch in part.to_batches()]
    whole = pa.Table.from_batches(join.beside(batches, shards))
    return whole.sort_by("place").drop_columns(["place"]).combine_chunks()


class _Hashing:
    """A stream that is written to, and what was written so far."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest, self.size = hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        """Append bytes."""
        whole = bytes(data)
        self._stream.write(whole)
        self.digest.update(whole)
        self.size += len(whole)
        return len(whole)

    def tell(self) -> int:
        """How much was written."""
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """The stream below is flushed by whoever opened it."""

    def close(self) -> None:
        """Likewise."""


class _JsonLines:
    """One object on each line."""

    def __init__(self, stream: _Hashing, schema: pa.Schema) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in batch.to_pylist())
        self._stream.write("".join(f"{line}\n" for line in lines).encode())


class _Csv:
    """A line for each row below one with the names."""

    def __init__(self, stream: _Hashing, schema: pa.Schema) -> None:
        self._schema = pa.schema([_flat(field) for field in schema])
        self._writer = pacsv.CSVWriter(stream, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        told = [pc.binary_join(c, JOINED) if _is_list(c.type) else c for c in batch.columns]
        self._writer.write(pa.RecordBatch.from_arrays(told, schema=self._schema))


def _flat(field: pa.Field) -> pa.Field:
    return pa.field(field.name, pa.string()) if _is_list(field.type) else field


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _parquet(stream: _Hashing, schema: pa.Schema) -> AbstractContextManager[Any]:
    writer: AbstractContextManager[Any] = pq.ParquetWriter(stream, schema, compression="zstd")
    return writer


_WRITERS: dict[str, Any] = {"csv": _Csv, "json": _JsonLines, "parquet": _parquet}
