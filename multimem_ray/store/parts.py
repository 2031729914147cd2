"""Parts: what was made of a shard so far, in files that outlive the one who made it.

    parts/<run>/<shard>.<source>/<first>-<end>.arrow

Such a file holds the score rows of the positions ``first`` to ``end``, and in its metadata what
else became of them. Small shards need none: they are committed before the first would be written.
A part is the same whoever makes it, so a second attempt overwrites or ignores it; the folder goes
when the shard is committed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from multimem_ray.arrow_files import READ_ERRORS, open_arrow
from multimem_ray.own_files import damaged
from multimem_ray.sample import Failure
from multimem_ray.storage import Storage
from multimem_ray.store.names import part_name, part_range

_KEY = b"multimem_ray"

GARBLED = (KeyError, TypeError, AttributeError, RuntimeError)
"""What garbled content raises where it is taken apart."""

AGAIN = "remove it and run the same command again: only this part is made anew"


class Rows(Protocol):
    """What is made of samples: a row for each."""

    def __len__(self) -> int: ...


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class Part(Generic[R]):
    """What became of the positions ``first`` to ``end`` (exclusive) of a shard.

    Args:
        held_out: How many of them were left to the held-out set.
    """

    first: int
    end: int
    rows: R
    held_out: int
    failures: list[Failure]

    def __post_init__(self) -> None:
        told = len(self.rows) + self.held_out + len(self.failures)
        if told != self.end - self.first:
            raise RuntimeError(
                f"positions {self.first} to {self.end} came to {len(self.rows)} rows, "
                f"{self.held_out} held out and {len(self.failures)} failures"
            )


def joined(parts: Sequence[Part[R]], join: Callable[[Sequence[R]], R]) -> Part[R]:
    """Adjacent parts as one.

    Raises:
        RuntimeError: They leave a gap or overlap; a defect, never the data.
    """
    for before, after in pairwise(parts):
        if before.end != after.first:
            raise RuntimeError(f"a gap or overlap between positions {before.end}, {after.first}")
    return Part(
        parts[0].first if parts else 0,
        parts[-1].end if parts else 0,
        join([part.rows for part in parts]),
        sum(part.held_out for part in parts),
        [failure for part in parts for failure in part.failures],
    )


class PartFolder(ABC, Generic[R]):
    """The parts of one shard.

    Args:
        storage: Where they lie.
        url: The folder.
    """

    suffix: ClassVar[str]

    def __init__(self, storage: Storage, url: str) -> None:
        self.storage, self.url = storage, url

    @abstractmethod
    def encoded(self, part: Part[R]) -> bytes:
        """The content of a part's file."""

    @abstractmethod
    def decoded(self, data: bytes, first: int, end: int) -> Part[R]:
        """The part in a file."""

    def write(self, part: Part[R]) -> str:
        """Keep a part; returns the name of its file."""
        name = part_name(part.first, part.end, self.suffix)
        self.storage.write_atomic(self.storage.join(self.url, name), self.encoded(part))
        return name

    def read(self, names: Iterable[str] | None = None) -> list[Part[R]]:
        """Parts that do not overlap, ascending; of an overlap the first, longest is taken.

        Args:
            names: File names, where they are known; otherwise the folder is listed.
        """
        parts = []
        for first, end in self.ranges(names):
            url = self.storage.join(self.url, part_name(first, end, self.suffix))
            parts.append(self.decoded(self.storage.read_bytes(url), first, end))
        return parts

    def ranges(self, names: Iterable[str] | None = None) -> list[tuple[int, int]]:
        """The positions that :meth:`read` would give."""
        there = self.names() if names is None else names
        spans = {span for name in there if (span := part_range(name, self.suffix)) is not None}
        kept: list[tuple[int, int]] = []
        for first, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            if not kept or first >= kept[-1][1]:
                kept.append((first, end))
        return kept

    def names(self) -> list[str]:
        """Names of the files that are there; one listing."""
        return [self.storage.name(f.url) for f in self.storage.list(self.url, recursive=False)]

    def remove(self) -> None:
        """All parts go."""
        self.storage.remove(self.url, recursive=True)

    def discard(self) -> None:
        """All parts go if they can: nobody needs them any more."""
        self.storage.discard(self.url, recursive=True)


class TableParts(PartFolder[pa.Table]):
    """Parts of table rows, as Arrow files."""

    suffix: ClassVar[str] = ".arrow"

    def encoded(self, part: Part[pa.Table]) -> bytes:
        about = {"held_out": part.held_out, "failures": [asdict(f) for f in part.failures]}
        table = part.rows.replace_schema_metadata({_KEY: json.dumps(about).encode()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue().to_pybytes())

    def decoded(self, data: bytes, first: int, end: int) -> Part[pa.Table]:
        name = self.storage.join(self.url, part_name(first, end, self.suffix))
        try:
            table = open_arrow(pa.BufferReader(data), name).read_all()
            about = json.loads(table.schema.metadata[_KEY])
            failures = [Failure(**failure) for failure in about["failures"]]
            rows = table.replace_schema_metadata(None)
            return Part(first, end, rows, about["held_out"], failures)
        except (*READ_ERRORS, *GARBLED) as error:
            raise damaged(name, error, AGAIN) from error
