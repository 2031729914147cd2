"""Lists of samples, as selections write them and people do: Parquet, or text.

A list is asked about many keys at a time. It is kept as sorted 64-bit hashes: eight bytes a
sample, and a wrong answer for one key in 10^10 at a thousand million of them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.design.shard_names import PARTS, parts_needed, require_parts, tail
from multimem_ray.errors import ConfigError, DesignError, StorageError
from multimem_ray.storage import Storage

Hashes = NDArray[np.uint64]

_BATCH = 1 << 16
EXAMPLES = 32
_NAMED = 3
OF_SHARD = ": "
"""Between shard and key of an example."""


@dataclass(frozen=True)
class KeyList:
    """A set of samples, each known by its key, or by the name of its shard and its key.

    Attributes:
        hashes: (N,) sorted, unique.
        by_shard: Whether the shard is part of what a sample is known by.
        parts: Parts of a shard's path that are its name.
        examples: A few of its keys, with their shards where these count, for people.
    """

    hashes: Hashes
    by_shard: bool = False
    parts: int = 1
    examples: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.hashes)

    def contains(self, keys: Sequence[str], shard: str = "") -> NDArray[np.bool_]:
        """(N,) whether each sample is in the list.

        Args:
            keys: Keys of samples.
            shard: URL or name of the shard that they stand in; ignored unless ``by_shard``.
        """
        if not len(self.hashes):
            return np.zeros(len(keys), bool)
        name = tail(shard, self.parts)
        values = hashed(keys, [name] * len(keys) if self.by_shard else None)
        places = np.minimum(np.searchsorted(self.hashes, values), len(self.hashes) - 1)
        return np.equal(self.hashes[places], values)

    def named(self, but: Collection[str] = ()) -> str:
        """A few of its keys in quotes, if possible others than these."""
        rest = [key for key in self.examples if key not in but] or list(self.examples)
        return ", ".join(map(repr, rest[:_NAMED])) or "no name"

    def digest(self) -> str:
        """Sixteen hex digits that tell one list from another."""
        data = self.hashes.tobytes() + bytes([self.by_shard])
        if self.parts > 1:
            data += bytes([self.parts])
        return hashlib.blake2b(data, digest_size=8).hexdigest()


def sample_name(key: str, shard: str | None) -> str:
    """What a sample is known by: the name of its shard and its key, or the key alone."""
    return key if shard is None else f"{shard}\0{key}"


def hashed(keys: Sequence[str], shards: Sequence[str] | None = None) -> Hashes:
    """(N,) 64-bit hashes of keys, or of names of shards and keys."""
    names: Sequence[str] = keys
    if shards is not None:
        names = [sample_name(key, shard) for shard, key in zip(shards, keys, strict=True)]
    digests = b"".join(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for name in names
    )
    return np.frombuffer(digests, dtype=np.uint64)


def read_keys(url: str, storage: Storage, *, by_shard: bool = True, parts: int = 1) -> KeyList:
    """Read a list of samples.

    Args:
        url: A Parquet file with a column ``key``, and ``shard`` where keys are not unique; a
            folder of such files; or a text file with one key on each line.
        by_shard: Whether a column ``shard`` counts; without, a key means it wherever it stands.
        parts: How many parts of their paths tell the shards apart that it will be asked about.

    Raises:
        ConfigError: It is none of these, has rows that name no sample, or does not say which of
            several shards of one file name it means.
        StorageError: It cannot be read.
    """
    files = [url]
    if not url.endswith(".parquet"):
        files = [info.url for info in storage.list(url) if info.url.endswith(".parquet")]
    if files:
        return _of_files(url, files, storage, by_shard, parts)
    if not storage.exists(url):
        raise ConfigError(f"{url}: no list of samples there; `multimem select` writes one")
    try:
        hashes, examples = list[Hashes](), list[str]()
        for keys in _lines(storage.read_bytes(url)):
            examples += keys[: EXAMPLES - len(examples)]
            hashes.append(hashed(keys))
        return KeyList(_unique(hashes), examples=tuple(examples))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{url}: neither Parquet nor text with a key on each line") from error


def _of_files(
    url: str, files: Sequence[str], storage: Storage, by_shard: bool, parts: int
) -> KeyList:
    about = [_shards_of(file, storage) if by_shard else None for file in files]
    known = [found for found in about if found is not None]
    if len(known) not in {0, len(files)}:
        raise ConfigError(f"{url}: some of its files have a column 'shard' and some have not")
    named = {name for names, _ in known for name in names}
    parts = max([parts, parts_needed(named), *(stated for _, stated in known)])
    require_parts(named, parts, url)
    hashes, examples = list[Hashes](), list[str]()
    for file in files:
        for keys, of in _of_parquet(file, storage, bool(known)):
            names = of and [tail(shard, parts) for shard in of]
            few = keys[: EXAMPLES - len(examples)]
            examples += (
                [f"{name}{OF_SHARD}{key}" for name, key in zip(names, few, strict=False)]
                if names
                else few
            )
            hashes.append(hashed(keys, names))
    return KeyList(_unique(hashes), bool(known), parts, tuple(examples))


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


def _lines(data: bytes) -> Iterator[list[str]]:
    """Keys, some at a time; Windows writes a mark of three bytes before the first."""
    text = data.decode("utf-8-sig")
    keys = (line for line in (line.strip() for line in io.StringIO(text)) if line)
    while batch := list(islice(keys, _BATCH)):
        yield batch


@contextmanager
def _opened(url: str, storage: Storage) -> Iterator[Any]:
    from multimem_ray.arrow_files import READ_ERRORS, ParquetFile

    try:
        with storage.open(url) as stream:
            yield ParquetFile(stream, url)
    except READ_ERRORS as error:
        raise ConfigError(f"{url}: cannot be read as Parquet: {error}") from error


def _shards_of(url: str, storage: Storage) -> tuple[set[str], int] | None:
    """The shards that a list names, and the parts of their names that it states."""
    with _opened(url, storage) as file:
        schema = file.schema_arrow
        if "shard" not in schema.names:
            return None
        named = {
            name
            for batch in file.iter_batches(columns=["shard"])
            for name in texts(batch["shard"].unique(), f"{url}: column 'shard'")
        }
        return named, int((schema.metadata or {}).get(PARTS, 1))


def _of_parquet(
    url: str, storage: Storage, by_shard: bool
) -> Iterator[tuple[list[str], list[str] | None]]:
    """Keys, and the shards that they stand in."""
    with _opened(url, storage) as file:
        if "key" not in file.schema_arrow.names:
            raise ConfigError(f"{url}: no column 'key'; `multimem select` writes such lists")
        for batch in file.iter_batches(columns=["key", "shard"] if by_shard else ["key"]):
            keys = texts(batch["key"], f"{url}: column 'key'")
            yield keys, texts(batch["shard"], f"{url}: column 'shard'") if by_shard else None


def texts(column: Any, where: str) -> list[str]:
    """The names in an Arrow column: text, UTF-8 bytes or whole numbers, in full.

    Args:
        where: File and column, for the error.

    Raises:
        ConfigError: It holds something else, or a row has none.
    """
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if column.null_count:
        raise ConfigError(f"{where} has rows without a value; remove them")
    if types.is_null(kind):
        return []
    whole = types.is_integer(kind)
    named = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    raw = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    if not (whole or named or raw):
        raise ConfigError(
            f"{where} holds {kind}, which no key is written in; store keys as text (of numbers, "
            "leading zeros are lost)"
        )
    try:
        names: list[str] = column.cast(pa.large_string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} holds bytes that are no UTF-8; store keys as text") from error
    return names


def _unique(parts: Iterable[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
