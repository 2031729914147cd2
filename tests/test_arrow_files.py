"""Files with extension types are refused before anything in them runs."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.arrow_files import ParquetFile, open_arrow, read_parquet
from multimem_ray.design.key_list import read_key_file, read_keys
from multimem_ray.errors import StorageError
from multimem_ray.results.planted import read_truth
from multimem_ray.storage import Storage

REFUSED = "holds an Arrow extension type"


class Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.place}",)


@pytest.fixture
def bombs(tmp_path: Path) -> pa.Array:
    """Pickled objects as Ray Data writes them, with Ray Data imported: each would make a file."""
    import ray.data  # noqa: F401 - registers the type
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectType

    kind = ArrowPythonObjectType()
    data = [pickle.dumps(Bomb(tmp_path / "ran"))] * 2
    return pa.ExtensionArray.from_storage(kind, pa.array(data, kind.storage_type))


def nested(bombs: pa.Array) -> pa.Array:
    lists = pa.ListArray.from_arrays([0, 1, 2], bombs)
    return pa.StructArray.from_arrays([lists], ["deep"])


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_the_bomb_goes_off_where_nobody_looks_first(bombs: pa.Array, tmp_path: Path) -> None:
    pq.read_table(io.BytesIO(parquet(pa.table({"key": bombs}))))["key"].to_pylist()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("padding", range(3))
@pytest.mark.parametrize("shape", [lambda a: a, nested])
def test_pickled_objects_are_refused(
    bombs: pa.Array, tmp_path: Path, shape: Callable[[pa.Array], pa.Array], padding: int
) -> None:
    # Names of several lengths move the schema against the groups of base64.
    table = pa.table({"k" * (1 + padding): ["a", "b"], "x" * (1 + 5 * padding): shape(bombs)})
    with pytest.raises(StorageError, match=f"list.parquet: {REFUSED}"):
        read_parquet(parquet(table), "list.parquet")
    path = tmp_path / "list.parquet"
    path.write_bytes(parquet(table))
    with pytest.raises(StorageError, match=REFUSED):
        ParquetFile(str(path), str(path))
    with pytest.raises(StorageError, match=f"part.arrow: {REFUSED}"):
        open_arrow(pa.BufferReader(arrow(table)), "part.arrow")
    assert not (tmp_path / "ran").exists()


def test_a_type_that_runs_code_when_its_schema_is_read_is_refused(tmp_path: Path) -> None:
    read: list[bytes] = []

    class Evil(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.string(), "test.evil")

        def __arrow_ext_serialize__(self) -> bytes:
            return b"payload"

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: pa.DataType, data: bytes) -> Evil:
            read.append(data)
            return cls()

    table = pa.table({"key": pa.ExtensionArray.from_storage(Evil(), pa.array(["a"]))})
    files = parquet(table), arrow(table)
    pa.register_extension_type(Evil())
    try:
        for open_it in (
            lambda: read_parquet(files[0], "f"),
            lambda: open_arrow(pa.BufferReader(files[1]), "f"),
        ):
            read.clear()
            with pytest.raises(StorageError, match=REFUSED):
                open_it()
            assert not read
    finally:
        pa.unregister_extension_type("test.evil")
    with pytest.raises(StorageError, match=REFUSED):
        read_parquet(files[0], "f")


def test_lists_of_keys_and_truths_are_refused(bombs: pa.Array, tmp_path: Path) -> None:
    url, storage = str(tmp_path / "keys.parquet"), Storage()
    pq.write_table(pa.table({"key": bombs, "shard": bombs, "planted": [True, False]}), url)
    for read in (
        lambda: read_keys(url, storage),
        lambda: read_truth(url, storage),
    ):
        with pytest.raises(StorageError, match=REFUSED):
            read()
    with pytest.raises(Exception, match=f"no file of keys that can be read.*{REFUSED}"):
        read_key_file(url, storage, "members")
    assert not (tmp_path / "ran").exists()


def test_plain_files_come_back_as_they_were_written(tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float16)), 3)
    table = pa.table(
        {"key": pa.array(["a", "b"], pa.large_string()), "v": vectors},
        metadata={"note": "kept"},
    )
    plain = pq.read_table(io.BytesIO(parquet(table)))
    assert read_parquet(parquet(table), "f").equals(plain, check_metadata=True)
    assert read_parquet(parquet(table), "f", ["key"]).column_names == ["key"]
    assert open_arrow(pa.BufferReader(arrow(table)), "f").read_all().equals(table)
    (tmp_path / "f.parquet").write_bytes(parquet(table))
    with ParquetFile(str(tmp_path / "f.parquet"), "f") as file:
        assert file.metadata.num_rows == 2
        assert [batch.num_rows for batch in file.iter_batches(1)] == [1, 1]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"ARROW1" * 4])
def test_other_files_are_no_parquet(data: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid, match="footer"):
        read_parquet(data, "f")
    with pytest.raises(pa.ArrowInvalid):
        open_arrow(pa.BufferReader(data), "f")
