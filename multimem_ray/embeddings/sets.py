"""From what a user names to the files of each model: how many rows, how wide, whose keys.

The keys of every file are read once, or their digest is where the files are ours: files of several
models with the same digest stand row by row beside each other and need no join.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from multimem_ray.arrow_files import READ_ERRORS
from multimem_ray.config import EmbeddingSet, nearest
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.files import (
    Place,
    array_file,
    group_starts,
    key_blocks,
    line_starts,
    open_parquet,
    read_blocks,
)
from multimem_ray.embeddings.layout import About, KeyDigest
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.storage import FileInfo, Storage, local_path

UNIT_ROWS = 65_536
"""Rows after which a large file may be cut; each piece is scored and committed by itself."""

_THREADS = 16
_KEY_ROWS = 65_536
_MAGIC = "*?["


@dataclass(frozen=True)
class Piece:
    """A file of one model's embeddings, or its arrays.

    Args:
        file: Parquet, or the keys of the arrays; its version tells of all of them.
        rows: Number of samples.
        keys: Digest of their keys.
        widths: Modality to numbers of a row.
        about: What our own files say.
        columns: Columns that are there.
        starts: Rows at which it may be cut, from 0 to ``rows``.
        offsets: Bytes at which those rows begin, in a text of keys.
        arrays: Modality to its ``.npy``.
        array_views: Views that the shape (N, V, d) of arrays tells; 0 where it does not.
    """

    file: FileInfo
    rows: int
    keys: str
    widths: Mapping[str, int]
    about: About | None
    columns: Sequence[str]
    starts: Sequence[int]
    offsets: Sequence[int] = ()
    arrays: Mapping[str, str] = field(default_factory=dict)
    array_views: int = 0

    def place(self, first: int, end: int) -> Place:
        """Rows of it; ``first`` is one of ``starts``."""
        offset = self.offsets[list(self.starts).index(first)] if self.offsets else 0
        return Place(self.file.url, first, end, offset, self.arrays)


@dataclass(frozen=True)
class Columns:
    """What is looked for in every set.

    Args:
        key: Column with the key.
        modalities: Modality to its column; empty = every column of numbers.
    """

    key: str
    modalities: Mapping[str, str]


def find_pieces(
    item: EmbeddingSet, columns: Columns, storage: Storage, absolute: Callable[[str], str]
) -> list[Piece]:
    """The files of one model, looked at.

    Args:
        absolute: Makes a local path independent of the folder a process runs in.

    Raises:
        ConfigError: There is none, or one lacks a column.
        StorageError: One cannot be read.
    """
    if item.arrays:
        return [_of_arrays(item, columns, storage, absolute)]
    named = [item.files] if isinstance(item.files, str) else list(item.files or [])
    files = [file for name in named for file in _files(absolute(name), storage)]
    if not files:
        raise ConfigError(f"data.embeddings.models: no Parquet file in {', '.join(named)}")
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda file: _of_parquet(file, columns, storage), files))
    return [piece for piece in found if piece.rows]


def _files(name: str, storage: Storage) -> list[FileInfo]:
    if any(c in name for c in _MAGIC):
        return [f for f in storage.glob(name) if f.url.endswith(".parquet")]
    path = local_path(name)
    is_file = path.is_file() if path is not None else storage.exists(name)
    if is_file:
        return [storage.info(name)]
    return [
        file
        for file in storage.list(name)
        if file.url.endswith(".parquet") and not _aside(file.url.removeprefix(name))
    ]


def _aside(below: str) -> bool:
    """Whether a file below a folder is none of embeddings: errors and the like."""
    first = below.strip("/").split("/")[0]
    return first in {"errors", "commits", "parts"} or first.startswith(("_", "."))


def _of_parquet(file: FileInfo, columns: Columns, storage: Storage) -> Piece:
    try:
        with open_parquet(storage, file.url) as parquet:
            schema, starts = parquet.schema_arrow, group_starts(parquet.metadata)
            about = About.of(schema)
    except READ_ERRORS as error:
        raise StorageError(f"{file.url}: cannot be read as Parquet: {error}") from error
    if columns.key not in schema.names:
        raise ConfigError(
            f"data.embeddings.key: {file.url} has no column '{columns.key}'"
            f"{nearest(columns.key, schema.names)}"
        )
    rows = starts[-1]
    whole = Place(file.url, 0, rows)
    if about is None:
        digest = KeyDigest()
        for block in read_blocks(storage, whole, {layout.KEY: columns.key}, _KEY_ROWS):
            if block.column(0).null_count:
                raise StorageError(f"{file.url}: column '{columns.key}' has rows without a key")
            digest.add(block.column(0))
        keys = digest.hexdigest()
    else:
        keys = about.keys
    wanted = columns.modalities or {name: name for name in modality_columns(schema)}
    widths = {}
    for name, column in wanted.items():
        if column not in schema.names:
            raise ConfigError(
                f"data.fields.{name}: {file.url} has no column '{column}'"
                f"{nearest(column, schema.names)}"
            )
        widths[name] = _width(storage, whole, schema.field(column))
    return Piece(file, rows, keys, widths, about, schema.names, _cuts(starts))


def modality_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold lists of floating-point numbers."""
    return [field.name for field in schema if _is_vector(field.type)]


def _is_vector(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_list(kind) for is_list in lists) and pa.types.is_floating(kind.value_type)


def _width(storage: Storage, whole: Place, column: pa.Field) -> int:
    """Numbers of a row: as the type says, or the first row that has any."""
    if not _is_vector(column.type):
        raise ConfigError(
            f"{whole.url}: column '{column.name}' holds {column.type}, not lists of floating-point "
            "numbers; name another column in data.fields"
        )
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    for block in read_blocks(storage, whole, {column.name: column.name}, 256):
        lengths = [length for length in block.column(0).value_lengths().to_pylist() if length]
        if lengths:
            return int(lengths[0])
    return 0


def _cuts(starts: Sequence[int]) -> list[int]:
    """Starts of row groups at least ``UNIT_ROWS`` apart, and the end."""
    kept = [0]
    for start in starts[1:-1]:
        if start - kept[-1] >= UNIT_ROWS and starts[-1] - start >= UNIT_ROWS // 2:
            kept.append(start)
    return [*kept, starts[-1]]


def _of_arrays(
    item: EmbeddingSet, columns: Columns, storage: Storage, absolute: Callable[[str], str]
) -> Piece:
    names = list(columns.modalities or item.arrays)
    missing = [name for name in names if name not in item.arrays]
    if missing:
        raise ConfigError(f"data.embeddings.models: arrays lack the modality {missing[0]}")
    keys_url = absolute(str(item.keys))
    arrays = {name: absolute(item.arrays[name]) for name in names}
    heads = {name: array_file(storage, url) for name, url in arrays.items()}
    rows, offsets = _key_rows(storage, keys_url)
    for name, head in heads.items():
        if head.dtype.kind != "f" or len(head.shape) not in {2, 3}:
            raise ConfigError(
                f"{head.url}: holds {head.dtype} of shape {head.shape}; give floating-point "
                "numbers of shape (N, d) or (N, V, d)"
            )
        if head.shape[0] != rows:
            raise ConfigError(f"{head.url}: {name} has {head.shape[0]} rows, {keys_url} {rows}")
    digest = KeyDigest()
    for keys in key_blocks(storage, Place(keys_url, 0, rows), _KEY_ROWS):
        digest.add(keys)
    file = _together(storage, [keys_url, *arrays.values()])
    starts = [*range(0, max(rows - UNIT_ROWS // 2, 1), UNIT_ROWS), rows]
    widths = {name: head.width for name, head in heads.items()}
    views = {head.shape[1] for head in heads.values() if len(head.shape) == 3}
    if len(views) > 1:
        raise ConfigError(f"{keys_url}: arrays of {sorted(views)} views; they must have the same")
    return Piece(
        file,
        rows,
        digest.hexdigest(),
        widths,
        None,
        [layout.KEY],
        starts,
        offsets,
        arrays,
        max(views, default=0),
    )


def _key_rows(storage: Storage, url: str) -> tuple[int, list[int]]:
    if url.lower().endswith(".parquet"):
        with open_parquet(storage, url) as parquet:
            return int(parquet.metadata.num_rows), []
    if url.lower().endswith(".npy"):
        return array_file(storage, url).shape[0], []
    return line_starts(storage, url, UNIT_ROWS)


def _together(storage: Storage, urls: Sequence[str]) -> FileInfo:
    """Several files as one that changes when any of them does."""
    infos = [storage.info(url) for url in urls]
    version = " ".join(f"{info.version}" for info in infos)
    return FileInfo(urls[0], sum(info.size for info in infos), version)
