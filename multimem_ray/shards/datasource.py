"""Shards as a Ray Data source: one read task per shard, one schema for whatever is in them.

A row is a sample, or a failure of reading. Members are a map from extension to bytes, so that
shards with other members, or samples without some, need no other schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.reader import DEFAULT_LIMITS, Limits, read_shard
from multimem_ray.storage import FileInfo, Storage

BLOCK_SAMPLES = 256
BLOCK_BYTES = 64 << 20

SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("index", pa.int64()),
        pa.field("members", pa.map_(pa.string(), pa.large_binary())),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


class ShardDatasource(Datasource):
    """Reads shards with ``ray.data.read_datasource``; every sample or failure is a row.

    Columns are those of ``SCHEMA``: ``members`` is null for a failure, and ``stage``, ``error``
    and ``detail`` are null for a sample. Blocks hold at most 256 rows and about 64 MiB. Pass
    ``override_num_blocks=len(shards)``: Ray would otherwise split every block again.

    Args:
        shards: As found by :func:`~multimem_ray.shards.find.find_shards`.
        storage: Where they lie.
        extensions: Members to keep; all by default.
        limits: See :func:`~multimem_ray.shards.reader.read_shard`.
    """

    def __init__(
        self,
        shards: Sequence[FileInfo],
        storage: Storage,
        *,
        extensions: Iterable[str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards = list(shards)
        self._storage = storage
        self._extensions = None if extensions is None else frozenset(extensions)
        self._limits = limits

    def get_name(self) -> str:
        """The name of the read tasks."""
        return "Shards"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self._shards)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task per shard, whatever the parallelism."""
        return [
            ReadTask(
                self._task(shard.url),
                BlockMetadata(
                    num_rows=None,
                    size_bytes=shard.size,
                    input_files=(shard.url,),
                    exec_stats=None,
                ),
                schema=SCHEMA,
            )
            for shard in self._shards
        ]

    def _task(self, url: str) -> Callable[[], Iterator[pa.Table]]:
        storage, extensions, limits = self._storage, self._extensions, self._limits
        return lambda: to_tables(read_shard(url, storage, limits=limits), extensions)


def to_tables(
    items: Iterable[Sample | Failure], extensions: frozenset[str] | None = None
) -> Iterator[pa.Table]:
    """Tables of ``SCHEMA``, at least one."""
    rows: list[dict[str, Any]] = []
    size, written = 0, False
    for item in items:
        row = _row(item, extensions)
        rows.append(row)
        size += sum(len(data) for _, data in row["members"] or ())
        if len(rows) == BLOCK_SAMPLES or size >= BLOCK_BYTES:
            yield pa.Table.from_pylist(rows, schema=SCHEMA)
            rows, size, written = [], 0, True
    if rows or not written:
        yield pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> Iterator[Sample | Failure]:
    """The samples and failures in a table or batch of ``SCHEMA``."""
    for row in table.select(SCHEMA.names).to_pylist():
        members = row.pop("members")
        if row["error"] is None:
            yield Sample(row["key"], row["shard"], row["index"], dict(members))
        else:
            yield Failure(**row)


def _row(item: Sample | Failure, extensions: frozenset[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"shard": item.shard, "key": item.key, "index": item.index}
    if isinstance(item, Failure):
        return row | {
            "members": None,
            "stage": item.stage,
            "error": item.error,
            "detail": item.detail,
        }
    members = [(e, d) for e, d in item.members.items() if extensions is None or e in extensions]
    return row | {"members": members}
