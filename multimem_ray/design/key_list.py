"""Lists of samples, as selections write them and people do: Parquet, or text.

A list is asked about many keys at a time. It is kept as sorted 64-bit hashes: eight bytes a
sample, and a wrong answer for one key in 10^10 at a thousand million of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from multimem_ray.errors import ConfigError, DesignError, StorageError
from multimem_ray.storage import Storage

Hashes = NDArray[np.uint64]

_BATCH = 1 << 16


@dataclass(frozen=True)
class KeyList:
    """A set of samples, each known by its key, or by the file name of its shard and its key.

    Attributes:
        hashes: (N,) sorted, unique.
        by_shard: Whether the shard is part of what a sample is known by.
    """

    hashes: Hashes
    by_shard: bool = False

    def __len__(self) -> int:
        return len(self.hashes)

    def contains(self, keys: Sequence[str], shard: str = "") -> NDArray[np.bool_]:
        """(N,) whether each sample is in the list.

        Args:
            keys: Keys of samples.
            shard: File name of the shard that they stand in; ignored unless ``by_shard``.
        """
        if not len(self.hashes):
            return np.zeros(len(keys), bool)
        values = hashed(keys, [shard] * len(keys) if self.by_shard else None)
        places = np.minimum(np.searchsorted(self.hashes, values), len(self.hashes) - 1)
        return np.equal(self.hashes[places], values)

    def digest(self) -> str:
        """Sixteen hex digits that tell one list from another."""
        data = self.hashes.tobytes() + bytes([self.by_shard])
        return hashlib.blake2b(data, digest_size=8).hexdigest()


def hashed(keys: Sequence[str], shards: Sequence[str] | None = None) -> Hashes:
    """(N,) 64-bit hashes of keys, or of file names of shards and keys."""
    names = keys if shards is None else [f"{s}\0{k}" for s, k in zip(shards, keys, strict=True)]
    digests = b"".join(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for name in names
    )
    return np.frombuffer(digests, dtype=np.uint64)


def read_keys(url: str, storage: Storage, *, by_shard: bool = True) -> KeyList:
    """Read a list of samples.

    Args:
        url: A Parquet file with a column ``key``, and ``shard`` where keys are not unique; a
            folder of such files; or a text file with one key on each line.
        by_shard: Whether a column ``shard`` counts; without, a key means it wherever it stands.

    Raises:
        ConfigError: It is none of these.
        StorageError: It cannot be read.
    """
    files = [url]
    if not url.endswith(".parquet"):
        files = [info.url for info in storage.list(url) if info.url.endswith(".parquet")]
    if files:
        parts = [part for file in files for part in _of_parquet(file, storage, by_shard)]
        kinds = {with_shard for _, with_shard in parts}
        if len(kinds) > 1:
            raise ConfigError(f"{url}: some of its files have a column 'shard' and some have not")
        return KeyList(_unique(hashes for hashes, _ in parts), kinds == {True})
    if not storage.exists(url):
        raise ConfigError(f"{url}: no list of samples there; `multimem select` writes one")
    try:
        return KeyList(_unique(_of_text(storage.read_bytes(url))))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{url}: neither Parquet nor text with a key on each line") from error


def read_key_file(url: str, storage: Storage, field: str) -> KeyList:
    """Read keys that count wherever they stand.

    Args:
        field: The config field that names the file, and what it is not; for the error.

    Raises:
        DesignError: It cannot be read.
    """
    try:
        return read_keys(url, storage, by_shard=False)
    except (ConfigError, StorageError) as error:
        raise DesignError(f"{field}, and no file of keys that can be read: {error}") from error


def _of_text(data: bytes) -> Iterator[Hashes]:
    lines = (line.decode("utf-8").strip() for line in io.BytesIO(data))
    keys = (line for line in lines if line)
    while batch := list(islice(keys, _BATCH)):
        yield hashed(batch)


def _of_parquet(url: str, storage: Storage, by_shard: bool) -> Iterator[tuple[Hashes, bool]]:
    import pyarrow as pa

    from multimem_ray.arrow_files import ParquetFile

    try:
        with storage.open(url) as stream:
            file = ParquetFile(stream, url)
            names = set(file.schema_arrow.names)
            if "key" not in names:
                raise ConfigError(f"{url}: no column 'key'; `multimem select` writes such lists")
            with_shard = by_shard and "shard" in names
            if not file.metadata.num_rows:
                yield hashed([]), with_shard
            for batch in file.iter_batches(columns=["key", "shard"] if with_shard else ["key"]):
                shards = batch["shard"].to_pylist() if with_shard else None
                shards = shards and [storage.name(shard) for shard in shards]
                yield hashed([str(key) for key in batch["key"].to_pylist()], shards), with_shard
    except pa.ArrowException as error:
        raise ConfigError(f"{url}: cannot be read as Parquet: {error}") from error


def _unique(parts: Iterable[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
