"""Decoded shards on the node's own disk: epochs after the first read arrays and decode nothing.

One Arrow file per shard, written whole or not at all, named by size and checksum. What does not
fit the bound is simply decoded again each epoch; a damaged file is noticed when it is first
opened, removed, and decoded again. Memory-mapped, so banks on one node share its pages.
"""

from __future__ import annotations

import glob
import logging
import os
import stat
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from multimem_ray.arrow_files import open_arrow
from multimem_ray.errors import ConfigError

logger = logging.getLogger(__name__)


class DecodedCache:
    """A bounded folder of decoded shards.

    Args:
        folder: Where; one for each data and decode configuration.
        limit: Most bytes that the folder may hold.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._verified: dict[str, Path] = {}
        _make_own(folder)

    def get(self, name: str) -> pa.Table | None:
        """The table of a shard, or None if it is not here or is damaged."""
        if name not in self._verified:
            for path in self.folder.glob(f"{glob.escape(name)}.*.arrow"):
                if _is_whole(path):
                    self._verified[name] = path
        verified = self._verified.get(name)
        if verified is None:
            return None
        return open_arrow(pa.memory_map(str(verified)), str(verified)).read_all()

    def put(self, name: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Keep a shard if there is room for it; another process may have been faster."""
        table = pa.concat_tables([schema.empty_table(), *tables])
        if self._used() + table.nbytes > self.limit:
            return
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
        path = Path(temporary)
        with os.fdopen(handle, "wb") as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_table(table)
        if self._used() > self.limit:
            path.unlink()
            return
        final = self.folder / f"{name}.{path.stat().st_size}-{_checksum(path):08x}.arrow"
        path.replace(final)

    def _used(self) -> int:
        return sum(entry.stat().st_size for entry in os.scandir(self.folder))


def _make_own(folder: Path) -> None:
    """A folder that this user alone can write to.

    Raises:
        ConfigError: Somebody else made it, and could put there what training would read.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    about, above = folder.lstat(), folder.parent.stat()
    own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    # Above it may lie a volume, which belongs to root.
    if not own or about.st_mode & 0o022 or above.st_uid not in {os.geteuid(), 0}:
        raise ConfigError(
            f"resources.cache_dir: {folder} is not this user's alone: name a folder of your own, "
            "or remove it"
        )


def _is_whole(path: Path) -> bool:
    size, _, checksum = path.name.split(".")[-2].partition("-")
    try:
        if path.stat().st_size == int(size) and _checksum(path) == int(checksum, 16):
            return True
    except (OSError, ValueError) as error:
        logger.warning("%s: unreadable (%s)", path, error)
    logger.warning("%s: damaged cache file; removed, its shard is decoded again", path)
    path.unlink(missing_ok=True)
    return False


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value
