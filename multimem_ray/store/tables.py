"""Parquet files of our own beside the rows of shards: read whole by one reader, or one line."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from multimem_ray.arrow_files import READ_ERRORS, read_parquet
from multimem_ray.own_files import damaged
from multimem_ray.storage import FileInfo, Storage

SHARDS = "shards.parquet"
"""The shards of a run as they were when it was opened, in its output."""

DUPLICATES = "duplicates.parquet"
"""The groups of near-duplicates of a run, in its output."""

_SHARDS_AGAIN = "remove it and run again, if no shard was replaced since: it is written anew"


def read_table(storage: Storage, url: str, way_out: str, columns: Sequence[str]) -> pa.Table:
    """These columns of a file.

    Raises:
        StorageError: It is damaged, or lacks one of them; names the way out.
    """
    data = storage.read_bytes(url)
    try:
        return read_parquet(data, url).select(list(columns))
    except (*READ_ERRORS, KeyError) as error:
        raise damaged(url, error, way_out) from error


def read_shards(storage: Storage, output: str) -> list[FileInfo]:
    """The shards that a run knows; [] of stored embeddings, and of a run of before it kept them.

    Raises:
        StorageError: The file is damaged.
    """
    url = storage.join(output, SHARDS)
    if not storage.exists(url):
        return []
    rows = read_table(storage, url, _SHARDS_AGAIN, ("url", "size", "version")).to_pylist()
    return [FileInfo(row["url"], row["size"], row["version"]) for row in rows]


def read_duplicates(storage: Storage, output: str) -> pa.Table | None:
    """``key``, ``shard`` and ``group`` of near-duplicates; None where nobody looked for them.

    Raises:
        StorageError: The file is damaged.
    """
    url = storage.join(output, DUPLICATES)
    if not storage.exists(url):
        return None
    way_out = "run `multimem duplicates` again"
    return read_table(storage, url, way_out, ("key", "shard", "group"))
