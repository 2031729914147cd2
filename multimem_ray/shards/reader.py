"""Reads a shard sample by sample, and accounts for whatever it cannot read.

A sample is given out only when what follows proves that it is whole: a member of another key, or
a clean end of the archive. At the first damage the reader stops; the sample that was being put
together becomes a :class:`Failure` with its key, and the rest of the shard another without one.
The reader does not search for the next header behind damage: what it found there could be the
inside of a member. The grouping is that of webdataset (``base_plus_ext``), except that hidden
files inside folders are skipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from multimem_ray.errors import StorageError
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.tar import Damage, Entry, TarStream, unpacked
from multimem_ray.storage import Storage


@dataclass(frozen=True)
class Limits:
    """What a reader takes into memory.

    Attributes:
        max_member_bytes: Largest member; a sample with a larger one is a ``too_large`` failure.
        max_sample_bytes: Largest sum over the members of a sample.
    """

    max_member_bytes: int = 1 << 30
    max_sample_bytes: int = 2 << 30


DEFAULT_LIMITS = Limits()


def read_shard(
    url: str, storage: Storage, *, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Sample | Failure]:
    """Stream the samples of a shard, and a failure for each that is lost.

    Memory holds one sample and the keys seen. No error is raised for anything that a file can
    contain or a storage can do; it is yielded.

    Args:
        url: Shard: ``.tar``, or gzip of it, whatever its name.
        storage: Where it lies.
        limits: Sizes beyond which a sample is not taken.

    Yields:
        Samples in the order of the archive; failures of stage ``read`` with the kinds
        ``repeated_key``, ``repeated_member``, ``too_large``, ``not_a_file`` (a sample), and
        ``truncated``, ``bad_header``, ``no_end_marker``, ``trailing_data``, ``zero_filled``,
        ``not_a_tar``, ``empty``, ``unreadable`` (the shard from some byte on, and the sample
        that it cuts).
    """
    group = _Group(url, limits)
    try:
        with storage.open(url) as stream:
            members = TarStream(unpacked(stream))
            for entry in members:
                place = split_name(entry.name)
                if place is None:
                    continue
                key, extension = place
                if key != group.key:
                    done = group.close()
                    if done is not None:
                        yield done
                    group.open(key)
                group.add(extension, entry, members)
        done = group.close()
        if done is not None:
            yield done
        elif group.count == 0:
            reason = "the archive is sound and holds no sample; was it written to the end?"
            yield group.failure("empty", reason)
    except Damage as damage:
        yield from group.cut(damage.kind, damage.reason)
    except EOFError:
        reason = "the compressed stream ends too early; copy or download it again"
        yield from group.cut("truncated", reason)
    except StorageError as error:
        yield from group.cut("unreadable", str(error))
    except (OSError, zlib.error) as error:
        yield from group.cut("unreadable", f"{error or type(error).__name__}; copy it again")


def split_name(name: str) -> tuple[str, str] | None:
    """Key and extension of a member, or ``None`` if it belongs to no sample.

    Left out are names without an extension, hidden files, ``__MACOSX`` and webdataset's own
    ``__meta__`` entries.
    """
    slash = name.rfind("/") + 1
    dot = name.find(".", slash)
    if dot <= slash:
        return None
    if name.startswith("__") and _is_meta(name):
        return None
    if "__MACOSX/" in name and ("/" + name).find("/__MACOSX/") >= 0:
        return None
    return name[:dot], name[dot + 1 :].lower()


def _is_meta(name: str) -> bool:
    # webdataset's skip_meta, r"__[^/]*__($|/)"
    first = name.partition("/")[0]
    return len(first) >= 4 and first.endswith("__")


class _Group:
    """The sample being put together."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.key: str | None = None
        self.count = 0
        self._url = url
        self._limits = limits
        self._seen: set[str] = set()
        self._members: dict[str, bytes] = {}
        self._size = 0
        self._problem: tuple[str, str] | None = None

    def open(self, key: str) -> None:
        self.key = key
        self._members = {}
        self._size = 0
        self._problem = None
        if key in self._seen:
            reason = "its members are not adjacent, or two samples share the key; the first is kept"
            self._problem = ("repeated_key", reason)
        self._seen.add(key)

    def add(self, extension: str, entry: Entry, content: TarStream) -> None:
        if self._problem is None:
            self._problem = self._objection(extension, entry)
        if self._problem is None:
            self._members[extension] = content.read()
            self._size += entry.size
        else:
            self._members.clear()

    def _objection(self, extension: str, entry: Entry) -> tuple[str, str] | None:
        if entry.obstacle is not None:
            reason = f"member .{extension} is {entry.obstacle}, not a file; repack the shard"
            return "not_a_file", f"{reason} with links followed"
        if extension in self._members:
            return "repeated_member", f"two members .{extension}; keep one of them"
        if entry.size > self._limits.max_member_bytes:
            limit = self._limits.max_member_bytes
            return "too_large", f"member .{extension} has {entry.size} bytes, the limit is {limit}"
        if self._size + entry.size > self._limits.max_sample_bytes:
            limit = self._limits.max_sample_bytes
            return "too_large", f"its members have more than {limit} bytes, which is the limit"
        return None

    def close(self) -> Sample | Failure | None:
        """The finished sample, or why it is none; ``None`` if there was nothing open."""
        if self.key is None:
            return None
        done: Sample | Failure
        if self._problem is None:
            done = Sample(self.key, self._url, self.count, self._members)
        else:
            done = self.failure(*self._problem)
        self.key = None
        self._members = {}
        self.count += 1
        return done

    def cut(self, kind: str, reason: str) -> Iterator[Failure]:
        """Damage: the open sample, if any, and the rest of the shard."""
        if self.key is not None:
            self._problem = self._problem or (kind, f"cut by damage to the shard: {reason}")
            done = self.close()
            if isinstance(done, Failure):
                yield done
        yield self.failure(kind, f"{reason}; {self.count} samples were begun before it")

    def failure(self, kind: str, reason: str) -> Failure:
        index = None if self.key is None else self.count
        return Failure(self._url, self.key, index, "read", kind, reason)
