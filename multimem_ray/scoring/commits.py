"""The commit log: one file per shard says that the shard is done, and what came of it.

    scores/partition=<nnn>/<shard>.parquet    written first, under a name that follows from the
    errors/partition=<nnn>/<shard>.parquet    shard: an attempt that is repeated overwrites
    commits/<shard>.<run>.<source>.<rows>-<held out>-<errors>.json      written last

Writing the marker is the commit. Its name holds what a resumption needs: one listing of the folder
tells what is done, under which configuration, from which version of the shard, and the sums.
Whoever reads scores takes what is committed only.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from multimem_ray.run import Run, partition_of, shard_id
from multimem_ray.scoring.files import error_file, score_file
from multimem_ray.scoring.parts import PartFolder
from multimem_ray.storage import FileInfo, Storage


@dataclass(frozen=True)
class Commit:
    """A committed shard, as its marker's name tells."""

    shard_id: str
    run: str
    source: str
    rows: int
    held_out: int
    errors: int
    url: str

    @property
    def samples(self) -> int:
        """Samples and failures of the shard together."""
        return self.rows + self.held_out + self.errors


@dataclass(frozen=True)
class Receipt:
    """What the driver learns of a shard that was scored."""

    shard: str
    rows: int
    held_out: int
    errors: int
    seconds: float

    @property
    def samples(self) -> int:
        """Samples and failures of the shard together."""
        return self.rows + self.held_out + self.errors


class CommitLog:
    """The commit log of a run.

    Args:
        storage: Where the output lies.
        output: The output folder.
        fingerprint: Of the configuration; commits of another do not count.
        partitions: Number of hive partitions.
    """

    def __init__(self, storage: Storage, output: str, fingerprint: str, partitions: int) -> None:
        self.storage, self.output = storage, output
        self.fingerprint, self.partitions = fingerprint, partitions

    def load(self) -> list[Commit]:
        """All markers, also stale ones."""
        return load_commits(self.storage, self.output)

    def split(
        self, shards: Iterable[FileInfo]
    ) -> tuple[list[Commit], list[tuple[FileInfo, list[str]]]]:
        """What is done, and what is to do with the stale markers that its commit replaces.

        Markers beside a valid one are removed: someone was killed between writing and tidying.
        """
        by_shard: dict[str, list[Commit]] = {}
        for commit in self.load():
            by_shard.setdefault(commit.shard_id, []).append(commit)
        done: list[Commit] = []
        todo: list[tuple[FileInfo, list[str]]] = []
        for shard in shards:
            commits = by_shard.get(shard_id(shard.url), [])
            valid = [c for c in commits if self._is_valid(c, shard)]
            if valid:
                kept = valid[0] if len(commits) == 1 else self._settle(commits, valid)
                done.append(kept)
            else:
                todo.append((shard, [commit.url for commit in commits]))
        return done, todo

    def _settle(self, commits: Sequence[Commit], valid: Sequence[Commit]) -> Commit:
        """The latest of several valid markers; all others of the shard go."""
        kept = max(valid, key=lambda c: (float(details(self.storage, c)["finished_at"]), c.url))
        for commit in commits:
            if commit is not kept:
                self.storage.remove(commit.url)
        return kept

    def _is_valid(self, commit: Commit, shard: FileInfo) -> bool:
        return commit.run == self.fingerprint and commit.source == source_version(shard)

    def commit(
        self,
        shard: FileInfo,
        receipt: Receipt,
        scores: pa.Table,
        errors: pa.Table,
        stale: Sequence[str] = (),
    ) -> None:
        """Write what came of a shard, then its marker.

        The markers it replaces go before: they would vouch for what is being overwritten.
        """
        for old in stale:
            self.storage.remove(old)
        digest = self._write_rows(shard.url, scores)
        self._mark(shard, receipt, digest, self._write("errors", shard.url, errors))

    def _write_rows(self, shard_url: str, rows: pa.Table) -> str | None:
        """Write the rows of a shard; returns the digest of the file."""
        return self._write("scores", shard_url, rows)

    def _mark(
        self, shard: FileInfo, receipt: Receipt, digest: str | None, errors_digest: str | None
    ) -> None:
        content = {
            **asdict(receipt),
            "size": shard.size,
            "version": shard.version,
            "sha256": digest,
            "errors_sha256": errors_digest,
            "fingerprint": self.fingerprint,
            "finished_at": time.time(),
        }
        sums = (receipt.rows, receipt.held_out, receipt.errors)
        marker = marker_name(shard_id(shard.url), self.fingerprint, source_version(shard), *sums)
        url = self.storage.join(self.output, "commits", marker)
        self.storage.write_atomic(url, json.dumps(content, indent=1).encode())

    def receipt(self, shard: FileInfo) -> Receipt | None:
        """The receipt of a shard if it is committed; costs a listing, unlike :meth:`split`."""
        commits = [c for c in self.load() if c.shard_id == shard_id(shard.url)]
        valid = [c for c in commits if self._is_valid(c, shard)]
        if not valid:
            return None
        content = details(self.storage, valid[0])
        return Receipt(**{name: content[name] for name in Receipt.__dataclass_fields__})

    def parts(self, shard: FileInfo) -> PartFolder:
        """Where what is scored of a shard is kept until the shard is committed."""
        name = f"{shard_id(shard.url)}.{source_version(shard)}"
        return PartFolder(self.storage, self.storage.join(self.parts_url, name))

    @property
    def parts_url(self) -> str:
        """The folder with the parts of all shards of this run."""
        return self.storage.join(self.output, "parts", self.fingerprint)

    def clear_parts(self) -> None:
        """All parts go, of whatever run: for when every shard is committed."""
        self.storage.remove(self.storage.join(self.output, "parts"), recursive=True)

    def known_parts(self) -> dict[str, list[str]]:
        """Names of parts that an earlier attempt left, by the URL of their folder; one listing."""
        found: dict[str, list[str]] = {}
        for info in self.storage.list(self.parts_url):
            folder, _, name = info.url.rpartition("/")
            found.setdefault(folder, []).append(name)
        return found

    def data_url(self, kind: str, shard_url: str) -> str:
        """Where the ``scores`` or ``errors`` of a shard lie."""
        partition = partition_of(shard_url, self.partitions)
        return self.storage.join(self.output, kind, partition, f"{shard_id(shard_url)}.parquet")

    def write_errors(self, shard_url: str, errors: pa.Table) -> None:
        """Errors of something that is never committed, such as a missing shard."""
        self._write("errors", shard_url, errors)

    def _write(self, kind: str, shard_url: str, table: pa.Table) -> str | None:
        url = self.data_url(kind, shard_url)
        if not table.num_rows:
            self.storage.remove(url)
            return None
        write = score_file if kind == "scores" else error_file
        data = write(table, self.fingerprint)
        self.storage.write_atomic(url, data)
        return hashlib.sha256(data).hexdigest()


def commit_log(run: Run) -> CommitLog:
    """The commit log of a run."""
    return CommitLog(run.storage, run.output, run.fingerprint, run.config.scoring.partitions)


def load_commits(storage: Storage, output: str) -> list[Commit]:
    """All markers of a run, also stale ones; one listing, whatever their number."""
    folder = storage.join(output, "commits")
    parsed = (parse_marker(info.url) for info in storage.list(folder, recursive=False))
    return [commit for commit in parsed if commit is not None]


def marker_name(shard_id: str, run: str, source: str, rows: int, held_out: int, errors: int) -> str:
    """The file name of a marker; see :class:`Commit` for the parts."""
    return f"{shard_id}.{run}.{source}.{rows}-{held_out}-{errors}.json"


def source_version(shard: FileInfo) -> str:
    """Eight hex digits that change when the shard's size or version (ETag, time) does."""
    text = f"{shard.size} {shard.version}"
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def details(storage: Storage, commit: Commit) -> dict[str, Any]:
    """The content of a marker."""
    content: dict[str, Any] = json.loads(storage.read_bytes(commit.url))
    return content


def parse_marker(url: str) -> Commit | None:
    """A commit from its marker's name; None for a file that is no marker."""
    parts = url.rsplit("/", 1)[-1].rsplit(".", 4)
    if len(parts) != 5 or parts[4] != "json":
        return None
    sums = parts[3].split("-")
    if len(sums) != 3 or not all(part.isdigit() for part in sums):
        return None
    rows, held_out, errors = map(int, sums)
    return Commit(parts[0], parts[1], parts[2], rows, held_out, errors, url)
