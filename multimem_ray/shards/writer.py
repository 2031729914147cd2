"""Writes shards that come out the same byte for byte, and appear only when they are whole.

webdataset's ``TarWriter`` makes the format. What could not be read back as it was written (a dot
in the key, an upper-case extension, a repeated key) is refused when it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Self

from multimem_ray.errors import ConfigError, ShardError
from multimem_ray.shards.reader import split_name
from multimem_ray.storage import Storage, translated

_BLOCK = 512


class TarShard:
    """One shard being written; made by :func:`create_shard`.

    Attributes:
        url: Where it will be.
        samples: Number of samples written.
        size: Bytes of headers and padded contents.
    """

    def __init__(self, url: str, stream: BinaryIO) -> None:
        import webdataset

        self.url = url
        self.samples = 0
        self.size = 0
        self._keys: set[str] = set()
        self._tar: Any = webdataset.TarWriter(
            stream, encoder=False, keep_meta=True, mtime=0, user="root", group="root"
        )

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add a sample; its members are stored in the order of their extensions.

        Args:
            key: Key, with directories if wanted; no dot in its last part.
            members: Extension (lower case, no leading dot) to content.

        Raises:
            ShardError: The sample would not be read back under this key with these members.
            StorageError: The storage is full or gone.
        """
        self._check(key, members)
        with translated(self.url):
            self._tar.write({"__key__": key, **members})
        # tarfile remembers every member for a listing that nobody will ask for.
        self._tar.tarstream.members.clear()
        self._keys.add(key)
        self.samples += 1
        self.size += sum(_BLOCK + len(data) + -len(data) % _BLOCK for data in members.values())

    def close(self) -> None:
        """Write the end marker."""
        with translated(self.url):
            self._tar.close()

    def _check(self, key: str, members: Mapping[str, bytes]) -> None:
        if key in self._keys:
            raise ShardError(f"key '{key}' is written twice; keys are unique in a shard", self.url)
        if not members:
            raise ShardError(f"key '{key}' has no member; leave the sample out", self.url)
        for extension in members:
            name = f"{key}.{extension}"
            if split_name(name) != (key, extension) or extension == "__key__" or not _is_text(name):
                reason = (
                    f"'{name}' would not be read back as key '{key}' with member '{extension}'; "
                    "use a key without dots in its last part, and a lower-case extension"
                )
                raise ShardError(reason, self.url)


@contextmanager
def create_shard(url: str, storage: Storage) -> Iterator[TarShard]:
    """A shard that appears under ``url`` when the block ends without an error.

    Raises:
        StorageError: It cannot be written.
    """
    with storage.create(url) as stream:
        shard = TarShard(url, stream)
        try:
            yield shard
        finally:
            # Also after an error: tarfile would close itself later, into a closed stream.
            shard.close()


class ShardWriter:
    """Writes samples into as many shards as they need.

    Use it as a context manager. If the block ends with an error, the shard that was being
    written does not appear; those before it stay.

    Args:
        folder: Folder or ``s3://`` prefix.
        storage: Where it lies.
        pattern: Names of the shards, with the number in format syntax.
        max_samples: Most samples of a shard.
        max_bytes: A shard that has reached this size is closed.

    Attributes:
        urls: Finished shards.

    Raises:
        ConfigError: The pattern gives every shard the same name.
    """

    def __init__(
        self,
        folder: str,
        storage: Storage | None = None,
        *,
        pattern: str = "{:06d}.tar",
        max_samples: int = 1000,
        max_bytes: int = 1 << 30,
    ) -> None:
        if pattern.format(0) == pattern.format(1):
            raise ConfigError(
                f"pattern '{pattern}': write a place for the number, such as {{:06d}}"
            )
        self.urls: list[str] = []
        self._folder, self._storage, self._pattern = folder, storage or Storage(), pattern
        self._max_samples, self._max_bytes = max_samples, max_bytes
        self._shard: TarShard | None = None
        self._open: AbstractContextManager[TarShard] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish(kind, error, trace)

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add a sample; see :meth:`TarShard.write`."""
        if self._shard is None:
            name = self._pattern.format(len(self.urls))
            self._open = create_shard(self._storage.join(self._folder, name), self._storage)
            self._shard = self._open.__enter__()
        self._shard.write(key, members)
        if self._shard.samples >= self._max_samples or self._shard.size >= self._max_bytes:
            self._finish(None, None, None)

    def close(self) -> list[str]:
        """Finish the last shard.

        Returns:
            URLs of all shards, in order.
        """
        self._finish(None, None, None)
        return self.urls

    def _finish(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        opened, shard = self._open, self._shard
        self._open = self._shard = None
        if opened is None or shard is None:
            return
        opened.__exit__(kind, error, trace)
        if kind is None:
            self.urls.append(shard.url)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name
