"""Single samples out of the shards of a run, when somebody looks at them.

Of a plain archive on a disk only the headers are read, up to the sample, and where samples begin is
remembered; a packed archive, or one in an object store, is read from the front. The sample itself
goes through the reader that scoring uses, and is shown through the report's decoders: under limits,
encoded anew, or as a line that says why not.
"""

from __future__ import annotations

import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from multimem_ray.design.shard_names import located, tail
from multimem_ray.foreign_text import visible
from multimem_ray.modalities import registry
from multimem_ray.report.samples import Content, contents_of
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard, split_name
from multimem_ray.storage import Storage, local_path

KEPT = 256  # samples whose contents stay in memory
KEPT_SHARDS = 64  # archives of which it is remembered where samples begin
AT_ONCE = 2  # samples that are decoded at a time
SMALL, LARGE = 60_000, 2_000_000  # bytes of a sample's media


class Shards:
    """Contents of samples, decoded on demand.

    Args:
        run: ``run.json``.
        storage: Where the shards lie.
        data: Where they lie now, as ``data.shards``, if they were moved.
        shard_parts: Parts of a path that tell the shards apart.

    Raises:
        ShardNotFoundError: ``data`` names no shard.
        ConfigError: A plugin of the run is not there.
    """

    def __init__(
        self, run: Mapping[str, Any], storage: Storage, data: str | None, shard_parts: int
    ) -> None:
        config = run.get("config") or {}
        registry.load_plugins((config.get("data") or {}).get("plugins") or ())
        self.fields: dict[str, str] = dict(run.get("fields") or {})
        self.stored = bool((config.get("data") or {}).get("embeddings"))
        self._settings = config.get("modalities") or {}
        self._storage, self._parts = storage, shard_parts
        self._moved: dict[str, str] = {}
        if data is not None:
            found = find_shards(data, storage).shards
            self._moved = {self._name(shard.url): shard.url for shard in found}
        self._kept: OrderedDict[tuple[str, str, int], list[Content]] = OrderedDict()
        self._starts: OrderedDict[str, _Starts] = OrderedDict()
        self._lock, self._decoding = threading.Lock(), threading.Semaphore(AT_ONCE)

    def url(self, shard: str) -> str:
        """Where a shard of the run lies now."""
        return self._moved.get(self._name(shard), shard)

    def _name(self, shard: str) -> str:
        return tail(located(shard), self._parts)

    def contents(self, shard: str, key: str, limit: int = SMALL) -> list[Content]:
        """What to show of a sample; a note where it cannot be shown. Nothing is raised for it."""
        asked = (shard, key, limit)
        with self._lock:
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked]
        if self.stored:
            return []
        with self._decoding:
            item = self.sample(shard, key)
            if isinstance(item, Sample):
                made = contents_of(item, self.fields, limit, self._settings)
            else:
                words = f"The content cannot be shown: {visible(item.detail, 200)}."
                made = [Content("sample", "note", lines=(words,))]
        with self._lock:
            self._kept[asked] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made

    def sample(self, shard: str, key: str) -> Sample | Failure:
        """The sample as it stands in its shard, or why it is not to be had."""
        url = self.url(shard)
        reason = "its key is not in the shard any more"
        for item in self._from(url, key):
            if item.key == key:
                return item
            if isinstance(item, Failure) and item.key is None:
                reason = item.detail
        return Failure(shard=shard, key=key, index=None, stage="read", error="", detail=reason)

    def _from(self, url: str, key: str) -> Iterator[Sample | Failure]:
        """The items of a shard, from the sample on where that is known."""
        path = local_path(url)
        if path is None or not path.is_file():
            return read_shard(url, self._storage)
        with self._lock:
            starts = self._starts.setdefault(url, _Starts())
            self._starts.move_to_end(url)
            while len(self._starts) > KEPT_SHARDS:
                self._starts.popitem(last=False)
        place = starts.of(key, url)
        return read_shard(url, _Behind(place) if place else self._storage)


class _Starts:
    """Where the samples of one archive begin, as far as somebody asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}
        self._version: tuple[int, int] | None = None
        self._next, self._ended = 0, False

    def of(self, key: str, url: str) -> int:
        """The offset of a sample's first header; 0 if it is not known: then read from the front."""
        path = local_path(url)
        if path is None:
            return 0
        with self._lock, path.open("rb", buffering=4096) as stream:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size)
            if version != self._version:
                self._places, self._next, self._ended = {}, 0, False
                self._version = version
            if key not in self._places and not self._ended:
                self._look(key, stream)
            return self._places.get(key, 0)

    def _look(self, key: str, stream: BinaryIO) -> None:
        stream.seek(self._next)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                last = None
                while (entry := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined] # it would keep them all
                    place = split_name(entry.name)
                    if place is None or place[0] == last:
                        continue
                    if last == key:
                        self._next = self._places.setdefault(place[0], entry.offset)
                        return
                    last = place[0]
                    self._places.setdefault(last, entry.offset)
            self._ended = True
        except (tarfile.TarError, OSError, ValueError):
            self._ended = True  # packed, or damaged: the reader says what it is


class _Behind(Storage):
    """Opens an archive where a sample begins."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self._offset = offset

    def open(self, url: str) -> BinaryIO:
        """The rest of the archive."""
        stream = super().open(url)
        stream.seek(self._offset)
        return stream
