"""Own Parquet files are read by one reader."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import StorageError
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.tables import (
    DUPLICATES,
    SHARDS,
    read_duplicates,
    read_shards,
    read_table,
)


def test_columns_of_a_file_or_one_line(tmp_path: Path) -> None:
    url, storage = str(tmp_path / "a.parquet"), Storage()
    pq.write_table(pa.table({"key": ["a"], "more": [1]}), url)
    assert read_table(storage, url, "out", ["key"]).to_pydict() == {"key": ["a"]}
    with pytest.raises(StorageError, match=r"a\.parquet: damaged \(.*shard.*\); the way$"):
        read_table(storage, url, "the way", ["key", "shard"])
    Path(url).write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match=r"a\.parquet: damaged \(.*\); the way$"):
        read_table(storage, url, "the way", ["key"])
    with pytest.raises(StorageError, match="no such file"):
        read_table(storage, url + "2", "the way", ["key"])


def test_what_was_never_written_is_absent(tmp_path: Path) -> None:
    storage, output = Storage(), str(tmp_path)
    assert read_shards(storage, output) == []
    assert read_duplicates(storage, output) is None
    pq.write_table(pa.table({"url": ["x.tar"], "size": [3], "version": ["v"]}), tmp_path / SHARDS)
    assert read_shards(storage, output) == [FileInfo("x.tar", 3, "v")]
    near = {"key": ["a"], "shard": ["x.tar"], "group": ["1"]}
    pq.write_table(pa.table(near), tmp_path / DUPLICATES)
    told = read_duplicates(storage, output)
    assert told is not None
    assert told.to_pydict() == near
