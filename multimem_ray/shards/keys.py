"""Lists of samples, as selections write them and people do: Parquet, or text.

A sample is known by the file name of its shard and its key, since shards move; a list without
shards means the key wherever it stands. Only 64-bit hashes are kept, eight bytes a sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage

_Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class KeyList:
    """A set of samples.

    Attributes:
        hashes: (N,) sorted, unique.
        by_shard: Whether the shard is part of what a sample is known by.
    """

    hashes: _Hashes
    by_shard: bool

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, shard: str, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Which samples of a shard are in the list, (N,).

        Args:
            shard: File name of the shard.
            keys: Keys of its samples.
        """
        if not len(self.hashes):
            return np.zeros(len(keys), bool)
        wanted = hashed(keys, [shard] * len(keys) if self.by_shard else None)
        at = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        found: NDArray[np.bool_] = self.hashes[at] == wanted
        return found

    def digest(self) -> str:
        """Sixteen hex digits that tell one list from another."""
        found = hashlib.blake2b(self.hashes.tobytes(), digest_size=8)
        found.update(bytes([self.by_shard]))
        return found.hexdigest()


def hashed(keys: Sequence[str], shards: Sequence[str] | None = None) -> _Hashes:
    """(N,) 64-bit hashes of keys, or of file names of shards and keys."""
    parts = keys if shards is None else [f"{s}\0{k}" for s, k in zip(shards, keys, strict=True)]
    digests = b"".join(
        hashlib.blake2b(part.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        for part in parts
    )
    return np.frombuffer(digests, dtype=np.uint64)


def read_keys(url: str, storage: Storage) -> KeyList:
    """Read a list of samples.

    Args:
        url: A Parquet file with a column ``key``, and ``shard`` where keys are not unique; a
            folder of such files; or a text file with one key on each line.

    Raises:
        ConfigError: It is none of these.
        StorageError: It cannot be read.
    """
    if url.endswith(".parquet"):
        files = [url]
    else:
        files = [info.url for info in storage.list(url) if info.url.endswith(".parquet")]
    if files:
        parts = [part for file in files for part in _of_parquet(file, storage)]
        kinds = {by_shard for _, by_shard in parts}
        if len(kinds) > 1:
            raise ConfigError(f"{url}: some of its files have a column 'shard' and some have not")
        return KeyList(_unique(hashes for hashes, _ in parts), kinds == {True})
    if not storage.exists(url):
        raise ConfigError(f"{url}: no list of samples there; `multimem select` writes one")
    try:
        lines = storage.read_bytes(url).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{url}: neither Parquet nor text with a key on each line") from error
    keys = [line.strip() for line in lines if line.strip()]
    return KeyList(_unique([hashed(keys)]), by_shard=False)


def _of_parquet(url: str, storage: Storage) -> Iterator[tuple[_Hashes, bool]]:
    try:
        with storage.open(url) as file:
            parquet = pq.ParquetFile(file)
            known = set(parquet.schema_arrow.names)
            if "key" not in known:
                raise ConfigError(f"{url}: no column 'key'; `multimem select` writes such lists")
            columns = [c for c in ("key", "shard") if c in known]
            if not parquet.metadata.num_rows:
                yield hashed([]), "shard" in known
            for batch in parquet.iter_batches(columns=columns):
                shards = batch["shard"].to_pylist() if "shard" in known else None
                names = None if shards is None else [storage.name(shard) for shard in shards]
                yield hashed(batch["key"].to_pylist(), names), "shard" in known
    except pa.ArrowException as error:
        raise ConfigError(f"{url}: cannot be read as Parquet: {error}") from error


def _unique(parts: Iterable[_Hashes]) -> _Hashes:
    every = [part for part in parts if len(part)]
    return np.unique(np.concatenate(every)) if every else np.empty(0, np.uint64)
