"""Markers: one small file per committed shard, whose name tells what a resumption needs.

    commits/<shard>.<run>.<source>.<rows>-<held out>-<errors>.json
    commits/<shard>.<run>.<source>.<rows>-<held out>-<errors>-<rows digest>-<files>.json

The second form is that of scores partitioned by a field
(see :mod:`multimem_ray.store.partitioning`). From the second epoch on (see
:mod:`multimem_ray.fence`) ``-e<epoch>`` follows the sums; of two markers the later epoch counts.
The content lists the files of the commit with their digests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multimem_ray.own_files import read_own
from multimem_ray.storage import Storage
from multimem_ray.store.names import score_stem, shard_stem


@dataclass(frozen=True)
class Commit:
    """A committed shard, as its marker's name tells.

    Args:
        digest: Of the rows, where scores are partitioned by a field; empty otherwise.
        files: Number of score files.
        epoch: Of who committed it.
    """

    shard_id: str
    run: str
    source: str
    rows: int
    held_out: int
    errors: int
    url: str
    digest: str = ""
    files: int = 1
    epoch: int = 1

    @property
    def samples(self) -> int:
        """Samples and failures of the shard together."""
        return self.rows + self.held_out + self.errors

    @property
    def stem(self) -> str:
        """Name of its score files without the extension; no other commit's files have it."""
        return score_stem(self.shard_id, self.run, self.source, self.digest, self.epoch)

    @property
    def error_stem(self) -> str:
        """Name of its error file without the extension."""
        return shard_stem(self.shard_id, self.run, self.epoch)


def parse_marker(url: str) -> Commit | None:
    """A commit from its marker's name; None for a file that is no marker."""
    parts = url.rsplit("/", 1)[-1].rsplit(".", 4)
    if len(parts) != 5 or parts[4] != "json":
        return None
    sums, epoch = parts[3].split("-"), 1
    if sums[-1][:1] == "e" and sums[-1][1:].isdecimal():
        epoch = int(sums.pop()[1:])
    numbers = [*sums[:3], *sums[4:]]
    if len(sums) not in (3, 5) or not all(part.isdecimal() for part in numbers):
        return None
    rows, held_out, errors = map(int, sums[:3])
    digest, files = (sums[3], int(sums[4])) if len(sums) == 5 else ("", min(rows, 1))
    return Commit(parts[0], parts[1], parts[2], rows, held_out, errors, url, digest, files, epoch)


def load_commits(storage: Storage, output: str) -> list[Commit]:
    """All markers of a run, also stale ones; one listing, whatever their number."""
    folder = storage.join(output, "commits")
    parsed = (parse_marker(info.url) for info in storage.list(folder, recursive=False))
    return [commit for commit in parsed if commit is not None]


def way_out(commit: Commit) -> str:
    """What to do about files of a commit that are not as they were written."""
    return f"remove {commit.url} and run `multimem score` again: only this shard is scored anew"


def details(storage: Storage, commit: Commit, **fields: Any) -> dict[str, Any]:
    """The content of a marker.

    Args:
        fields: Keys that must be there, and their types.

    Raises:
        StorageError: It is damaged; names the way out.
    """
    return read_own(storage, commit.url, way_out(commit), **fields)


def valid_commits(storage: Storage, output: str, run: str) -> list[Commit]:
    """The commits of a configuration, one for each shard: of several, that of the last epoch."""
    commits = [commit for commit in load_commits(storage, output) if commit.run == run]
    return list({c.shard_id: c for c in sorted(commits, key=lambda c: (c.epoch, c.url))}.values())
