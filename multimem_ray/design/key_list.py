"""A list of keys from a file, asked for many keys at a time.

It is kept as sorted 64-bit hashes: eight bytes a key, and a wrong answer for one key in 10^10 at a
thousand million of them. The keys themselves are never in memory all at once.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from multimem_ray.errors import DesignError, StorageError
from multimem_ray.storage import Storage


class KeyList:
    """The keys in a Parquet (column ``key``) or a text (one on each line).

    Args:
        url: The file.
        storage: Where it lies.
        field: Of the configuration, and what it may be instead; for errors.

    Raises:
        DesignError: It cannot be read.
    """

    def __init__(self, url: str, storage: Storage, field: str) -> None:
        try:
            data = storage.read_bytes(url)
            keys = _of_parquet(data, url) if url.endswith(".parquet") else _of_text(data)
            self._known = np.unique(_hashes(keys))
        except (StorageError, UnicodeDecodeError) as error:
            raise DesignError(f"{field}, and no file of keys that can be read: {error}") from error

    def contains(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) bool: whether each key is in the list."""
        if not len(self._known):
            return np.zeros(len(keys), dtype=bool)
        values = _hashes(keys)
        at = np.minimum(np.searchsorted(self._known, values), len(self._known) - 1)
        found: NDArray[np.bool_] = self._known[at] == values
        return found


def _of_parquet(data: bytes, url: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if "key" not in file.schema_arrow.names:
            raise DesignError(f"{url}: no Parquet with a column 'key'")
        for batch in file.iter_batches(columns=["key"]):
            yield from batch.column(0).to_pylist()
    except pa.ArrowException as error:
        raise DesignError(f"{url}: no Parquet with a column 'key': {error}") from error


def _of_text(data: bytes) -> Iterator[str]:
    lines = (line.decode("utf-8").strip() for line in io.BytesIO(data))
    return (line for line in lines if line)


def _hashes(keys: Iterable[str]) -> NDArray[np.uint64]:
    def digests() -> Iterator[int]:
        for key in keys:
            data = str(key).encode("utf-8", "surrogatepass")
            yield int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")

    return np.fromiter(digests(), dtype=np.uint64)
