"""From what a user names to the files of each model."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from multimem_ray.config import EmbeddingSet
from multimem_ray.embeddings.sets import Columns, Piece, find_pieces, modality_columns
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.storage import Storage
from tests.embeddings.kept import keys_of, table, vectors, write


def pieces_of(files: str, **modalities: str) -> list[Piece]:
    item = EmbeddingSet.model_validate({"files": files})
    return find_pieces(item, Columns("key", modalities), Storage(), str)


def test_files_of_a_folder_are_found_with_what_is_in_them(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(keys_of(5), vectors(5, 8, 0), label=["x"] * 5))
    write(tmp_path / "sub" / "b.parquet", table(keys_of(3), vectors(3, 8, 1)))
    write(tmp_path / "errors" / "c.parquet", table(keys_of(3), vectors(3, 8, 1)))
    pieces = pieces_of(str(tmp_path))
    assert sorted(piece.rows for piece in pieces) == [3, 5]
    assert {tuple(piece.widths.items()) for piece in pieces} == {
        (("audio", 8), ("image", 8), ("text", 8)),
    }  # fmt: skip
    (named,) = pieces_of(str(tmp_path / "a.parquet"), picture="image")
    assert named.widths == {"picture": 8}
    assert "label" in named.columns


def test_equal_keys_have_an_equal_digest(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", table(keys_of(40), vectors(40, 8, 0)))
    second = write(tmp_path / "b.parquet", table(keys_of(40), vectors(40, 6, 1)), row_group_size=7)
    assert pieces_of(first)[0].keys == pieces_of(second)[0].keys


def test_columns_of_numbers_are_modalities() -> None:
    schema = pa.schema(
        [("key", pa.string()), ("a", pa.list_(pa.float16())), ("b", pa.list_(pa.int64()))]
    )
    assert modality_columns(schema) == ["a"]


def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(StorageError, match="cannot be read as Parquet"):
        pieces_of(str(tmp_path))
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(ConfigError, match="no Parquet file"):
        pieces_of(str(tmp_path))
