"""From what a user writes to the list of shards.

``data/{000..127}.tar``, ``data/*.tar``, a folder, ``@list.txt`` (one per line), several of them
joined by ``::`` or given as a list; on a disk or in S3. What is named and absent is told, not
passed over. In S3 each folder is listed once, however many shards in it are named.
"""

from __future__ import annotations

import glob
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from braceexpand import braceexpand

from multimem_ray.errors import (
    ConfigError,
    MultiMemWarning,
    ShardError,
    ShardNotFoundError,
    StorageError,
)
from multimem_ray.storage import FileInfo, Storage, local_path

SUFFIXES = (".tar", ".tar.gz", ".tgz")

_UNSUPPORTED = re.compile(r"\.(tar\.(zst|zstd|bz2|xz|lz4|Z)|tbz2?|txz|tzst)$", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
_MAX_NESTING = 8


@dataclass(frozen=True)
class Found:
    """What a specification of shards came to.

    Attributes:
        shards: In the order given; sorted within a glob or folder; each once.
        missing: Paths and patterns that name nothing.
    """

    shards: list[FileInfo]
    missing: list[str]


def find_shards(spec: str | Sequence[str], storage: Storage) -> Found:
    """Expand a specification and look which of its shards are there.

    From globs and folders (searched to any depth) only names ending in ``.tar``, ``.tar.gz`` or
    ``.tgz`` are taken; a file that is named outright may be called anything.

    Raises:
        ShardNotFoundError: There is no shard at all.
        ShardError: A shard is packed in a way that cannot be streamed, such as ``.tar.zst``.
        ConfigError: Braces do not match, or lists name each other in a circle.
        StorageError: The storage cannot be asked, or an ``@`` list cannot be read.
    """
    parts = [spec] if isinstance(spec, str) else list(spec)
    lookup = _Lookup(storage)
    shards: list[FileInfo] = []
    missing: list[str] = []
    for path in _expand(parts, storage, _MAX_NESTING):
        found = lookup.find(path)
        shards += found
        if not found:
            missing.append(path)
    for info in shards:
        if _UNSUPPORTED.search(info.url):
            reason = "this compression is not supported; unpack it, or repack it as .tar or .tar.gz"
            raise ShardError(reason, info.url)
    shards, missing = _unique(shards), list(dict.fromkeys(missing))
    if not shards:
        shown = ", ".join(missing[:3] or parts[:3]) + (", …" if len(missing) > 3 else "")
        reason = "no shard found; name .tar files, a folder, a glob, braces or an @list"
        raise ShardNotFoundError(reason, shown)
    return Found(shards, missing)


def _expand(parts: Iterable[str], storage: Storage, nesting: int) -> Iterator[str]:
    """Paths, globs and folders, with lists read and braces expanded."""
    for piece in (piece.strip() for part in parts for piece in part.split("::")):
        if piece.startswith("@"):
            if nesting == 0:
                raise ConfigError(f"data.shards: {piece}: lists that name each other; use one list")
            yield from _expand(_lines(piece[1:], storage), storage, nesting - 1)
        elif piece:
            try:
                yield from braceexpand(piece)
            except ValueError as error:
                raise ConfigError(f"data.shards: {piece}: braces do not match: {error}") from None


def _lines(url: str, storage: Storage) -> list[str]:
    try:
        text = storage.read_bytes(url).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StorageError(f"{url}: a list of shards must be UTF-8 text: {error}") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


class _Lookup:
    """Finds files; remembers the listing of each remote folder."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folders: dict[str, dict[str, FileInfo]] = {}

    def find(self, path: str) -> list[FileInfo]:
        """The files that one path, glob or folder stands for."""
        named = self._named(path)
        if named is not None:
            return [named]
        if _MAGIC.search(path) and not _is_folder(path):
            pattern = _literal(path)
            return [info for info in self._storage.glob(pattern) if _is_shard(info.url)]
        if _is_shard(path) and not _is_folder(path):
            return []
        return [info for info in self._storage.list(path) if _is_shard(info.url)]

    def _named(self, path: str) -> FileInfo | None:
        local = local_path(path)
        if local is not None:
            return self._storage.info(path) if local.is_file() else None
        if path.endswith("/") or _MAGIC.search(path):
            return None
        folder = path.rpartition("/")[0]
        if folder in {"s3:/", "s3:"}:
            return None
        if folder not in self._folders:
            listed = self._storage.list(folder, recursive=False)
            self._folders[folder] = {info.url: info for info in listed}
        return self._folders[folder].get(path)


def _is_shard(url: str) -> bool:
    return url.lower().endswith(SUFFIXES) or bool(_UNSUPPORTED.search(url))


def _is_folder(path: str) -> bool:
    local = local_path(path)
    return local is not None and local.is_dir()


def _literal(pattern: str) -> str:
    """A pattern in which folders that are there, such as ``v[2]``, stand for themselves."""
    local = local_path(pattern)
    if local is None:
        return pattern
    place, parts = Path(), list[str]()
    for part in local.parts:
        place /= part
        parts.append(glob.escape(part) if place.is_dir() else part)
    return str(Path(*parts))


def _unique(shards: list[FileInfo]) -> list[FileInfo]:
    """Each shard once, whatever links and ``..`` lead to it; under the name that comes first."""
    first: dict[str, FileInfo] = {}
    for info in shards:
        path = local_path(info.url)
        first.setdefault(info.url if path is None else str(path.resolve()), info)
    if len(first) < len(shards):
        warnings.warn(
            f"data.shards: {len(shards) - len(first)} shards are named more than once; "
            "each is read once",
            MultiMemWarning,
            stacklevel=3,
        )
    return list(first.values())
