"""Parts: what was scored of a shard so far, in files that outlive the one who scored it.

    parts/<run>/<shard>.<source>/<first>-<end>.arrow

Such a file holds the score rows of the positions ``first`` to ``end``, and in its metadata what
else became of them. Small shards need none: they are committed before the first would be written.
A part is the same whoever makes it, so a second attempt overwrites or ignores it; the folder goes
when the shard is committed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import pyarrow as pa

from multimem_ray.arrow_files import open_arrow
from multimem_ray.sample import Failure
from multimem_ray.storage import Storage
from multimem_ray.store.names import part_name, part_range

_KEY = b"multimem_ray"
_SUFFIX = ".arrow"


@dataclass(frozen=True)
class Part:
    """What became of the positions ``first`` to ``end`` (exclusive) of a shard."""

    first: int
    end: int
    rows: pa.Table
    held_out: int
    failures: list[Failure]

    def __post_init__(self) -> None:
        told = self.rows.num_rows + self.held_out + len(self.failures)
        if told != self.end - self.first:
            raise RuntimeError(
                f"positions {self.first} to {self.end} came to {self.rows.num_rows} rows, "
                f"{self.held_out} held out and {len(self.failures)} failures"
            )


def joined(parts: Sequence[Part], schema: pa.Schema) -> Part:
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
        pa.concat_tables([schema.empty_table(), *(part.rows for part in parts)]).combine_chunks(),
        sum(part.held_out for part in parts),
        [failure for part in parts for failure in part.failures],
    )


class PartFolder:
    """The parts of one shard.

    Args:
        storage: Where they lie.
        url: The folder.
    """

    def __init__(self, storage: Storage, url: str) -> None:
        self.storage, self.url = storage, url

    def write(self, part: Part) -> str:
        """Keep a part; returns the name of its file."""
        about = {"held_out": part.held_out, "failures": [asdict(f) for f in part.failures]}
        table = part.rows.replace_schema_metadata({_KEY: json.dumps(about).encode()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        name = part_name(part.first, part.end, _SUFFIX)
        self.storage.write_atomic(self.storage.join(self.url, name), sink.getvalue().to_pybytes())
        return name

    def read(self, names: Iterable[str] | None = None) -> list[Part]:
        """Parts that do not overlap, ascending; of an overlap the first, longest is taken.

        Args:
            names: File names, where they are known; otherwise the folder is listed.
        """
        return [self._read(*span) for span in self.ranges(names)]

    def ranges(self, names: Iterable[str] | None = None) -> list[tuple[int, int]]:
        """The positions that :meth:`read` would give."""
        there = self.names() if names is None else names
        spans = {span for name in there if (span := part_range(name, _SUFFIX)) is not None}
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

    def _read(self, first: int, end: int) -> Part:
        url = self.storage.join(self.url, part_name(first, end, _SUFFIX))
        table = open_arrow(pa.BufferReader(self.storage.read_bytes(url)), url).read_all()
        about = json.loads(table.schema.metadata[_KEY])
        failures = [Failure(**failure) for failure in about["failures"]]
        rows = table.replace_schema_metadata(None)
        return Part(first, end, rows, about["held_out"], failures)
