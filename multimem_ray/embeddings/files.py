"""Rows of stored embeddings, a bounded number at a time, whatever they are stored in.

A block is an Arrow record batch with the columns ``key`` (``large_string``), whichever of
``shard, index, label, group, held_out`` there are, and one list of numbers for each modality that
was asked for, under the modality's own name. Numbers are not copied from where Arrow or the file
put them, unless they are no float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from multimem_ray.arrow_files import ParquetFile
from multimem_ray.embeddings import layout
from multimem_ray.errors import StorageError
from multimem_ray.storage import Storage, local_path

_KEY_BATCH = 65_536


@dataclass(frozen=True)
class Place:
    """Rows ``first`` to ``end`` (exclusive) of a file.

    Args:
        url: A Parquet file, or the keys of arrays.
        offset: Byte at which row ``first`` begins, in a text of keys.
        arrays: Modality to its ``.npy``; empty for Parquet.
    """

    url: str
    first: int
    end: int
    offset: int = 0
    arrays: Mapping[str, str] = field(default_factory=dict)


def read_blocks(
    storage: Storage, place: Place, columns: Mapping[str, str], rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a place in blocks of exactly ``rows``, but for the last.

    Args:
        columns: Name in the block to the column of a Parquet file; of arrays, what is not a
            modality is ignored. Columns that a file lacks are left out.

    Raises:
        StorageError: A file cannot be read, or not as what its name says.
    """
    try:
        if place.arrays:
            yield from _from_arrays(storage, place, [n for n in columns if n in place.arrays], rows)
        else:
            found = _parquet_rows(storage, place, columns, rows)
            yield from _exactly(found, rows)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise StorageError(f"{place.url}: cannot be read as embeddings: {error}") from error


def open_parquet(storage: Storage, url: str) -> ParquetFile:
    """A Parquet file, by path where it is local: Arrow then reads without Python in between."""
    path = local_path(url)
    return ParquetFile(storage.open(url) if path is None else str(path), url)


def _parquet_rows(
    storage: Storage, place: Place, columns: Mapping[str, str], rows: int
) -> Iterator[pa.RecordBatch]:
    with open_parquet(storage, place.url) as file:
        there = set(file.schema_arrow.names)
        wanted = {name: column for name, column in columns.items() if column in there}
        starts = group_starts(file.metadata)
        groups = [
            number
            for number in range(len(starts) - 1)
            if starts[number] < place.end and starts[number + 1] > place.first
        ]
        at = starts[groups[0]] if groups else 0
        batches = file.iter_batches(
            rows, row_groups=groups, columns=list(wanted.values()), use_threads=False
        )
        for batch in batches:
            first, end = max(place.first - at, 0), min(place.end - at, batch.num_rows)
            at += batch.num_rows
            if first < end:
                cut = batch if end - first == batch.num_rows else batch.slice(first, end - first)
                yield _renamed(cut, wanted)


def group_starts(metadata: Any) -> list[int]:
    """Row at which each row group starts, and the number of rows."""
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return [0, *np.cumsum(sizes, dtype=np.int64).tolist()]


def _renamed(batch: pa.RecordBatch, columns: Mapping[str, str]) -> pa.RecordBatch:
    """The columns under our names; texts as what the rest of the package reads."""
    arrays = []
    for name, column in columns.items():
        array = batch.column(batch.schema.get_field_index(column))
        arrays.append(_as_text(array) if name in _TEXTS else array)
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


_TEXTS = (layout.KEY, layout.SHARD, layout.LABEL, layout.GROUP)


def _as_text(array: pa.Array) -> pa.Array:
    return array if array.type == pa.large_string() else array.cast(pa.large_string())


def _exactly(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of ``rows``; those that fit are passed on as they are."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if not waiting and batch.num_rows == rows:
            yield batch
            continue
        rest = batch
        while count + rest.num_rows >= rows:
            waiting.append(rest.slice(0, rows - count))
            yield joined_blocks(waiting)
            rest, waiting, count = rest.slice(waiting[-1].num_rows), [], 0
        if rest.num_rows:
            waiting.append(rest)
            count += rest.num_rows
    if waiting:
        yield joined_blocks(waiting)


def joined_blocks(blocks: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    return pa.Table.from_batches(blocks).combine_chunks().to_batches()[0]


@dataclass(frozen=True)
class ArrayFile:
    """The header of a ``.npy``: what is in it, and where the numbers begin."""

    url: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    begins: int

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    def rows(self, stream: BinaryIO, count: int) -> NDArray[Any]:
        """The next rows of a stream, (count, width)."""
        data = stream.read(count * self.width * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(count, self.width)

    def seek(self, stream: BinaryIO, row: int) -> None:
        """Go to a row."""
        stream.seek(self.begins + row * self.width * self.dtype.itemsize)


def array_file(storage: Storage, url: str) -> ArrayFile:
    """Read the header of a ``.npy``; nothing in it is unpickled.

    Raises:
        StorageError: It is none, or holds Python objects, or is in Fortran order.
    """
    with storage.open(url) as stream:
        try:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except Exception as error:
            # NumPy reads the header as Python's source, and raises whatever a tokenizer may.
            said = " ".join(str(error).split())[:200]
            raise StorageError(f"{url}: not a .npy file: {said}") from error
        begins = stream.tell()
    if dtype.hasobject or (fortran and len(shape) > 1):
        objects = "holds Python objects, which are never unpickled"
        raise StorageError(
            f"{url}: {objects if dtype.hasobject else 'is in Fortran order'}; save it again with "
            "numpy.save from a C-contiguous array of numbers or text"
        )
    return ArrayFile(url, shape, dtype, begins)


def _from_arrays(
    storage: Storage, place: Place, modalities: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    files = [array_file(storage, place.arrays[name]) for name in modalities]
    streams = [storage.open(file.url) for file in files]
    try:
        for file, stream in zip(files, streams, strict=True):
            file.seek(stream, place.first)
        for keys in key_blocks(storage, place, rows):
            columns = [keys]
            for file, stream in zip(files, streams, strict=True):
                values = pa.array(file.rows(stream, len(keys)).reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(values, file.width))
            yield pa.RecordBatch.from_arrays(columns, names=[layout.KEY, *modalities])
    finally:
        for stream in streams:
            stream.close()


def key_blocks(storage: Storage, place: Place, rows: int) -> Iterator[pa.Array]:
    """Keys of arrays, in blocks of ``rows``.

    Raises:
        StorageError: The file is none of text, ``.npy`` and Parquet.
    """
    name = place.url.lower()
    if name.endswith(".parquet"):
        found = _parquet_rows(storage, place, {layout.KEY: layout.KEY}, rows)
        yield from (block.column(0) for block in _exactly(found, rows))
    elif name.endswith(".npy"):
        file = array_file(storage, place.url)
        if file.dtype.kind not in "US":
            raise StorageError(f"{place.url}: keys of type {file.dtype}; save them as text")
        with storage.open(place.url) as stream:
            file.seek(stream, place.first)
            for at in range(place.first, place.end, rows):
                try:
                    yield _texts(file.rows(stream, min(rows, place.end - at)).reshape(-1))
                except (ValueError, SystemError, pa.ArrowException) as error:
                    reason = f"keys of {file.dtype} that are cut short or no text: {error}"
                    raise StorageError(f"{place.url}: {reason}") from error
    else:
        with storage.open(place.url) as stream:
            stream.seek(place.offset)
            for at in range(place.first, place.end, rows):
                lines = [next(stream) for _ in range(min(rows, place.end - at))]
                yield pa.array([_line(line) for line in lines], pa.large_string())


def line_starts(storage: Storage, url: str, every: int) -> tuple[int, list[int]]:
    """Number of lines of a text, and the byte at which every so-many-th begins."""
    starts, count, at = [0], 0, 0
    with storage.open(url) as stream:
        for line in stream:
            at += len(line)
            count += 1
            if count % every == 0:
                starts.append(at)
    return count, starts


def _line(line: bytes) -> str:
    return line.decode("utf-8-sig" if line.startswith(b"\xef\xbb\xbf") else "utf-8").strip()


def _texts(values: NDArray[Any]) -> pa.Array:
    if values.dtype.kind == "S":
        return pa.array(values.tolist(), pa.large_binary()).cast(pa.large_string())
    return pa.array(values.tolist(), pa.large_string())


def vectors(column: pa.Array, width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A column of lists as numbers.

    Args:
        width: Numbers that each list should have.

    Returns:
        (N, width) float32, undefined where absent; and (N,) whether the list has that length,
        False where it is null.
    """
    here = np.ones(len(column), bool)
    if column.null_count:
        here = column.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(column.type):
        if column.type.list_size != width:
            return np.zeros((len(column), width), np.float32), np.zeros(len(column), bool)
        flat = column.values.slice(column.offset * width, len(column) * width)
        return _floats(flat).reshape(len(column), width), here
    starts = column.offsets.to_numpy()
    fits = here & (np.diff(starts) == width)
    if fits.all():
        flat = column.values.slice(starts[0], len(column) * width)
        return _floats(flat).reshape(len(column), width), fits
    values = _floats(column.values)
    found = np.zeros((len(column), width), np.float32)
    found[fits] = values[starts[:-1][fits][:, None] + np.arange(width)]
    return found, fits


def _floats(values: pa.Array) -> NDArray[np.float32]:
    """Numbers as float32; where a list holds a null, NaN."""
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=values.null_count == 0)
    return numbers.astype(np.float32, copy=False)
