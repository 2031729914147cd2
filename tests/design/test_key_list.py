"""Lists of samples: by key or by shard and key, from text, Parquet and folders of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.design.key_list import KeyList, hashed, read_key_file, read_keys
from multimem_ray.errors import ConfigError, DesignError
from multimem_ray.storage import Storage

STORAGE = Storage()


def written(path: Path, **columns: list[str]) -> str:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_text_has_a_key_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes("ä\n b \n\nb\r\n".encode())
    keys = read_keys(str(tmp_path / "keys.txt"), STORAGE)
    assert len(keys) == 2
    assert not keys.by_shard
    assert keys.contains(["ä", "b", "c", ""]).tolist() == [True, True, False, False]


def test_a_folder_of_parquet_tells_shards_apart(tmp_path: Path) -> None:
    written(tmp_path / "list" / "0.parquet", key=["a"], shard=["/was/1.tar"])
    written(tmp_path / "list" / "1.parquet", key=["b"], shard=["/was/2.tar"])
    keys = read_keys(str(tmp_path / "list"), STORAGE)
    assert keys.by_shard
    assert keys.contains(["a", "b"], "1.tar").tolist() == [True, False]
    anywhere = read_keys(str(tmp_path / "list"), STORAGE, by_shard=False)
    assert anywhere.contains(["a", "b", "c"]).tolist() == [True, True, False]


def test_nothing_is_in_an_empty_list(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"key": pa.array([], pa.string()), "shard": pa.array([], pa.string())}),
        tmp_path / "none.parquet",
    )
    keys = read_keys(str(tmp_path / "none.parquet"), STORAGE)
    assert (len(keys), keys.by_shard) == (0, True)
    assert not keys.contains(["a"], "x.tar").any()


def test_a_digest_tells_lists_apart() -> None:
    one = KeyList(np.sort(hashed(["a", "b"])))
    assert one.digest() == KeyList(np.sort(hashed(["b", "a"]))).digest()
    others = (KeyList(hashed(["a"])), KeyList(one.hashes, by_shard=True))
    assert len({one.digest(), *(other.digest() for other in others)}) == 3


def test_hashes_never_change() -> None:
    assert [f"{h:016x}" for h in hashed(["a", "b"], ["x.tar", "y.tar"])] == PINNED


PINNED = ["1ea2941d144e7bf2", "10b4402d29306309"]


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no list of samples"):
        read_keys(str(tmp_path / "nothing"), STORAGE)
    with pytest.raises(ConfigError, match="no column 'key'"):
        read_keys(written(tmp_path / "bad.parquet", name=["a"]), STORAGE)
    (tmp_path / "junk").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="neither Parquet nor text"):
        read_keys(str(tmp_path / "junk"), STORAGE)
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        read_keys(str(tmp_path / "junk.parquet"), STORAGE)
    written(tmp_path / "mixed" / "0.parquet", key=["a"], shard=["x"])
    written(tmp_path / "mixed" / "1.parquet", key=["a"])
    with pytest.raises(ConfigError, match="some have not"):
        read_keys(str(tmp_path / "mixed"), STORAGE)
    with pytest.raises(DesignError, match="members 'x' is none of all, and no file of keys"):
        read_key_file(str(tmp_path / "junk"), STORAGE, "members 'x' is none of all")


@pytest.mark.parametrize(
    "keys",
    [pa.array([1, 20]), pa.array([b"1", b"20"]), pa.array(["1", "20"]).dictionary_encode()],
    ids=["integers", "bytes", "dictionary"],
)
def test_keys_are_understood_however_they_are_stored(tmp_path: Path, keys: pa.Array) -> None:
    pq.write_table(pa.table({"key": keys}), tmp_path / "keys.parquet")
    listed = read_keys(str(tmp_path / "keys.parquet"), STORAGE)
    assert listed.contains(["1", "20", "2"]).tolist() == [True, True, False]
    assert listed.examples == ("1", "20")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (pa.array(["a", None]), "column 'key' has rows without a value"),
        (pa.array([1.0, float("nan")]), "column 'key' holds double, which no key is written in"),
        (pa.array([b"\xff"]), "holds bytes that are no UTF-8"),
    ],
    ids=["null", "floats", "no text"],
)
def test_what_names_no_sample_is_refused(tmp_path: Path, keys: pa.Array, said: str) -> None:
    pq.write_table(pa.table({"key": keys}), tmp_path / "keys.parquet")
    with pytest.raises(ConfigError, match=said):
        read_keys(str(tmp_path / "keys.parquet"), STORAGE)


def test_a_byte_order_mark_belongs_to_no_key(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    listed = read_keys(str(tmp_path / "keys.txt"), STORAGE)
    assert listed.contains(["a", "b"]).all()


def test_shards_of_one_file_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    table = pa.table({"key": ["a", "b"], "shard": ["/x/cc3m/0.tar", "/x/cc12m/0.tar"]})
    pq.write_table(table, tmp_path / "keys.parquet")
    listed = read_keys(str(tmp_path / "keys.parquet"), STORAGE)
    assert listed.parts == 2
    assert listed.contains(["a", "b"], "s3://moved/cc3m/0.tar").tolist() == [True, False]
