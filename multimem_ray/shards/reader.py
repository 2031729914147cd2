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
from hashlib import blake2b

from multimem_ray.config import DEFAULT_LIMITS, LimitsConfig
from multimem_ray.errors import StorageError
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.tar import Damage, Entry, TarStream, unpacked
from multimem_ray.storage import Storage

_LONG = "named at too great a length"
_BESIDE_KEY = 100  # bytes that a key takes beside itself, in the set of those seen


def read_shard(
    url: str, storage: Storage, *, limits: LimitsConfig = DEFAULT_LIMITS
) -> Iterator[Sample | Failure]:
    """Stream the samples of a shard, and a failure for each that is lost.

    Memory holds one sample and the keys seen, both within ``limits``. No error is raised for
    anything that a file can contain or a storage can do; it is yielded.

    Args:
        url: Shard: ``.tar``, or gzip of it, whatever its name.
        storage: Where it lies.
        limits: Sizes beyond which a sample, or the rest of the shard, is not taken.

    Yields:
        Samples in the order of the archive; failures of stage ``read`` with the kinds
        ``repeated_key``, ``repeated_member``, ``too_large``, ``not_a_file`` (a sample),
        ``dotted_key`` (what was meant to be a sample and lies in another one), and
        ``truncated``, ``bad_header``, ``no_end_marker``, ``trailing_data``, ``zero_filled``,
        ``not_a_tar``, ``empty``, ``unreadable``, ``too_large`` (the shard from some byte on, and
        the sample that it cuts).
    """
    group, short = _Group(url, limits), limits.name_bytes // 4
    try:
        with storage.open(url) as stream:
            members = TarStream(unpacked(stream, limits.expansion))
            for entry in members:
                place = split_name(entry.name)
                if place is None:
                    continue
                key, extension = place
                # No character has more than four bytes.
                if len(entry.name) > short and len(entry.name.encode()) > limits.name_bytes:
                    key, extension, entry.obstacle = _short(key), _short(extension), _LONG
                if key != group.key:
                    done = group.close()
                    if done is not None:
                        yield done
                        yield from swallowed(done)
                    group.open(key)
                group.add(extension, entry, members)
        done = group.close()
        if done is not None:
            yield done
            yield from swallowed(done)
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


def swallowed(sample: Sample | Failure) -> Iterator[Failure]:
    """Samples with a dot in their key that became members of another one.

    Of ``a.jpg, a.txt, a.1.jpg, a.1.txt`` a reader makes one sample ``a``. Where at least two
    members have the same words before their extension, and other members of the sample the same
    extensions without them or after other words, a sample was meant.
    """
    if isinstance(sample, Failure) or "." not in "".join(sample.members):
        return
    kinds: dict[str, set[str]] = {}
    for name in sample.members:
        words, _, kind = name.rpartition(".")
        kinds.setdefault(words, set()).add(kind)
    whole = {words: own for words, own in kinds.items() if len(own) > 1}
    for words in sorted(whole.keys() - {""}):
        others = set[str]().union(*(own for w, own in whole.items() if w != words))
        if len(whole[words] & others) > 1:
            key = f"{sample.key}.{words}"
            reason = (
                f"its members belong to the sample '{sample.key}', since a key ends at the first "
                "dot of the name; write the shard with another character in its place"
            )
            yield Failure(sample.shard, key, None, "read", "dotted_key", reason)


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


def _short(name: str) -> str:
    """A name that is told apart from others and can be kept, of one that is too long for that."""
    digest = blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{name[:100]}…{digest}" if len(name) > 116 else name


def _is_meta(name: str) -> bool:
    # webdataset's skip_meta, r"__[^/]*__($|/)"
    first = name.partition("/")[0]
    return len(first) >= 4 and first.endswith("__")


class _Group:
    """The sample being put together."""

    def __init__(self, url: str, limits: LimitsConfig) -> None:
        self.key: str | None = None
        self.count = 0
        self._url = url
        self._limits = limits
        self._small, self._whole = limits.smallest_member, limits.sample_bytes
        self._most, self._most_keys = limits.members, limits.keys_bytes
        self._seen: set[str] = set()
        self._keys_bytes = 0
        self._members: dict[str, bytes] = {}
        self._size = 0
        self._problem: tuple[str, str] | None = None

    def open(self, key: str) -> None:
        """Begin a sample.

        Raises:
            Damage: More keys than may be remembered.
        """
        self._keys_bytes += len(key) + _BESIDE_KEY
        if self._keys_bytes > self._most_keys:
            limit = f"data.limits.keys_bytes = {self._limits.keys_bytes}"
            raise Damage("too_large", f"its keys are above the limit {limit}; split the shard")
        self.key = key
        self._members = {}
        self._size = 0
        self._problem = None
        if key in self._seen:
            reason = "its members are not adjacent, or two samples share the key; the first is kept"
            self._problem = ("repeated_key", reason)
        self._seen.add(key)

    def add(self, extension: str, entry: Entry, content: TarStream) -> None:
        members, size = self._members, self._size + entry.size
        if self._problem is None and (
            # What is beyond no limit is told at once: this is done for every member there is.
            entry.obstacle is not None
            or entry.size > self._small
            or size > self._whole
            or len(members) == self._most
            or extension in members
        ):
            self._problem = self._objection(extension, entry)
        if self._problem is None:
            members[extension] = content.read()
            self._size = size + len(extension)
        else:
            members.clear()

    def _objection(self, extension: str, entry: Entry) -> tuple[str, str] | None:
        if entry.obstacle is not None and entry.obstacle is not _LONG:
            reason = f"member .{extension} is {entry.obstacle}, not a file; repack the shard"
            return "not_a_file", f"{reason} with links followed"
        if extension in self._members:
            return "repeated_member", f"two members .{extension}; keep one of them"
        beyond = self._beyond(extension, entry)
        if beyond is None:
            return None
        what, limit = beyond
        limit = f"data.limits.{limit} = {getattr(self._limits, limit)}"
        return "too_large", f"{what}, above the limit {limit}"

    def _beyond(self, extension: str, entry: Entry) -> tuple[str, str] | None:
        """What is too large, and which limit says so."""
        limits = self._limits
        if entry.obstacle is _LONG:
            return f"the name of member .{extension} is too long", "name_bytes"
        of_member, most = limits.bytes_of(extension)
        if entry.size > most:
            return f"member .{extension} has {entry.size} bytes", of_member
        if self._size + entry.size > limits.sample_bytes:
            return f"its members up to .{extension} have more bytes", "sample_bytes"
        if len(self._members) == limits.members:
            return f"it has more than {limits.members} members", "members"
        return None

    def close(self) -> Sample | Failure | None:
        """The finished sample, or why it is none; ``None`` if there was nothing open."""
        if self.key is None:
            return None
        done: Sample | Failure
        if self._problem is None:
            done = Sample(self.key, self._url, self.count, self._members, self._limits)
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
