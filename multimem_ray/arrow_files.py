"""Parquet and Arrow files of anybody, read so that nothing in them runs.

Arrow hands a column of an extension type to whoever registered that type, and Ray Data registers
one that unpickles its values, and others that unpickle their parameters as soon as a schema is
read. A file names its extension types in its footer, so the footer is looked through as bytes
before Arrow sees any of it, and a file that names one is refused, however deep the column lies.
Every Parquet or Arrow file is opened here, and nowhere else.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.errors import StorageError

_EXTENSION = b"ARROW:extension"


def _base64_forms(text: bytes) -> tuple[bytes, ...]:
    """What a text looks like inside base64: it may begin at any of the three bytes of a group."""
    forms = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text)
        # Characters that also hold bits of what stands before or behind it are left out.
        forms.append(encoded[-(-8 * before // 6) : 8 * (before + len(text)) // 6])
    return tuple(forms)


# Parquet keeps the Arrow schema as base64 in its footer, an Arrow file as it is.
_SIGNS = (_EXTENSION, *_base64_forms(_EXTENSION))


READ_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises over damaged files: its own errors, and Python's for some of them."""


class ParquetFile(pq.ParquetFile):  # type: ignore[misc]  # noqa: TID251 - the one that looks first
    """A Parquet file without extension types, open for reading.

    Args:
        source: A local path, or a stream that can seek.
        name: The file's name, for errors.
        options: Of ``pyarrow.parquet.ParquetFile``.

    Raises:
        StorageError: It holds an extension type.
        pyarrow.ArrowInvalid: It is no Parquet file.
    """

    def __init__(self, source: str | BinaryIO, name: str, **options: Any) -> None:
        if isinstance(source, str):
            with open(source, "rb") as stream:  # noqa: PTH123 - a path as Arrow takes it
                footer = read_footer(stream, name)
        else:
            footer = read_footer(source, name)
        # The footer that was looked at is the one that is used, whatever the file says next time.
        super().__init__(source, metadata=footer, arrow_extensions_enabled=False, **options)


def read_footer(stream: BinaryIO, name: str) -> pq.FileMetaData:
    """The footer of a Parquet file: its rows are not read.

    Raises:
        StorageError: It holds an extension type.
        pyarrow.ArrowInvalid: It is no Parquet file.
    """
    whole = pa.BufferReader(b"PAR1" + _footer(stream, b"PAR1", name))
    with pq.ParquetFile(whole) as empty:  # noqa: TID251 - of a footer that was looked at
        return empty.metadata


def read_parquet(data: bytes, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in the bytes of a Parquet file.

    Raises:
        StorageError: It holds an extension type.
        pyarrow.ArrowInvalid: It is no Parquet file.
    """
    with ParquetFile(io.BytesIO(data), name) as file:
        return file.read(columns=None if columns is None else list(columns))


def open_arrow(source: pa.NativeFile, name: str) -> pa.ipc.RecordBatchFileReader:
    """A reader of an Arrow IPC file.

    Raises:
        StorageError: It holds an extension type.
        pyarrow.ArrowInvalid: It is no Arrow file.
    """
    _footer(source, b"ARROW1", name)
    return pa.ipc.open_file(source)  # noqa: TID251 - its footer was looked at


def _footer(stream: Any, magic: bytes, name: str) -> bytes:
    """The footer of a file, with its length and magic word; of one that holds no extension type."""
    size = stream.seek(0, io.SEEK_END)
    ending = _ends(stream, size, 4 + len(magic))
    length = int.from_bytes(ending[:4], "little", signed=True)
    if ending[4:] != magic or not 0 < length <= size - len(ending):
        raise pa.ArrowInvalid(
            f"the footer of a {'Parquet' if magic == b'PAR1' else 'Arrow'} file "
            "is missing: cut short, or another format"
        )
    footer = _ends(stream, size, length + len(ending))
    if any(sign in footer for sign in _SIGNS):
        raise StorageError(
            f"{name}: holds an Arrow extension type, which may run code when it is read; write it "
            "again with plain columns of text, numbers and lists"
        )
    stream.seek(0)
    return footer


def _ends(stream: Any, size: int, count: int) -> bytes:
    stream.seek(max(size - count, 0))
    data: bytes = stream.read(count)
    return data
