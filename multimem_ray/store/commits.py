"""The commit log: one file per shard says that the shard is done, and what came of it.

    scores/…/<shard>….parquet                 written first, under names that follow from the shard
    errors/partition=<nnn>/<shard>.parquet    and its rows: an attempt that is repeated overwrites
    commits/<shard>.<run>.<source>.….json     written last

Writing the marker is the commit. Its name holds what a resumption needs: one listing of the folder
tells what is done, under which configuration, from which version of the shard, and the sums.
Whoever reads scores takes what is committed only.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from operator import attrgetter
from typing import TypeAlias

import pyarrow as pa

from multimem_ray.fence import Fence
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.files import error_file, score_file
from multimem_ray.store.markers import (
    Commit,
    details,
    load_commits,
    parse_marker,
)
from multimem_ray.store.names import (
    epoch_of,
    marker_name,
    score_stem,
    shard_id,
    shard_stem,
    source_version,
)
from multimem_ray.store.partitioning import Partitioning, rows_digest
from multimem_ray.store.parts import TableParts

Encode: TypeAlias = Callable[[pa.Table, str], bytes]
"""Rows and the fingerprint of the run, as Parquet."""

_WRITERS = 8


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


@dataclass(frozen=True)
class Written:
    """The files of rows that a commit wrote: URL to SHA-256, and the digest of their names."""

    files: Mapping[str, str]
    digest: str = ""


class CommitLog:
    """The commit log of a run.

    Args:
        storage: Where the output lies.
        output: The output folder.
        fingerprint: Of the configuration; commits of another do not count.
        layout: How scores are partitioned.
        fence: Says whether this is still the one that writes; default: of the first epoch.
    """

    def __init__(
        self,
        storage: Storage,
        output: str,
        fingerprint: str,
        layout: Partitioning,
        fence: Fence | None = None,
    ) -> None:
        self.storage, self.output = storage, output
        self.fingerprint, self.layout = fingerprint, layout
        self.fence = fence or Fence(storage, output)
        self._known_folders: set[str] = set()

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
        kept = max(valid, key=lambda c: (c.epoch, self._finished_at(c), c.url))
        for commit in commits:
            if commit is not kept and commit.epoch <= self.fence.epoch:
                self.storage.discard(commit.url)
        return kept

    def _finished_at(self, commit: Commit) -> float:
        return float(details(self.storage, commit, finished_at=(int, float))["finished_at"])

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

        The markers it replaces go before: they would vouch for what is being overwritten. Files
        that only they list go afterwards.

        Raises:
            ConfigError: Scores are partitioned by a field with too many values.
            ReplacedError: Another process has opened the run since.
        """
        self.fence.require()
        outdated = {url for old in stale for url in self._listed(old)}
        for old in stale:
            self.storage.remove(old)
        written = self._write_rows(shard, scores)
        files = {**written.files, **self.write_errors(shard.url, errors)}
        if not self.fence.is_open():
            # Nobody would vouch for them, and whoever reads the folder as it is must not see them.
            for url in files:
                self.storage.discard(url)
            self.fence.require()
        self._mark(shard, receipt, written, files)
        for url in outdated - files.keys():
            self.storage.discard(url)

    def _write_rows(self, shard: FileInfo, rows: pa.Table) -> Written:
        """Write the rows of a shard."""
        if self.layout.by is None:
            return Written(self._write(self.data_url("scores", shard.url), rows, score_file))
        pieces = dict(self.layout.pieces(rows))
        place = self.storage.join(self.output, "scores")
        self.layout.admit(self.storage, place, set(pieces), self._known_folders)
        digest = rows_digest(rows)
        owner = shard_id(shard.url), self.fingerprint, source_version(shard)
        name = score_stem(*owner, digest, self.fence.epoch)
        urls = [self.storage.join(place, folder, f"{name}.parquet") for folder in pieces]
        with ThreadPoolExecutor(_WRITERS) as pool:
            made = pool.map(self._write, urls, pieces.values(), repeat(score_file))
            return Written({url: sha for found in made for url, sha in found.items()}, digest)

    def _mark(
        self, shard: FileInfo, receipt: Receipt, written: Written, files: Mapping[str, str]
    ) -> None:
        below = len(self.storage.join(self.output, ""))
        content = {
            **asdict(receipt),
            "size": shard.size,
            "version": shard.version,
            "files": {url[below:]: sha256 for url, sha256 in files.items()},
            "fingerprint": self.fingerprint,
            "finished_at": time.time(),
        }
        marker = marker_name(
            shard_id(shard.url),
            self.fingerprint,
            source_version(shard),
            *(receipt.rows, receipt.held_out, receipt.errors),
            digest=written.digest,
            files=len(written.files),
            epoch=self.fence.epoch,
        )
        url = self.storage.join(self.output, "commits", marker)
        self.storage.write_atomic(url, json.dumps(content, indent=1).encode())

    def receipt(self, shard: FileInfo) -> Receipt | None:
        """The receipt of a shard if it is committed; costs a listing, unlike :meth:`split`."""
        commits = [c for c in self.load() if c.shard_id == shard_id(shard.url)]
        valid = [c for c in commits if self._is_valid(c, shard)]
        if not valid:
            return None
        kinds = {"shard": str, "seconds": (int, float)}
        kinds |= dict.fromkeys(("rows", "held_out", "errors"), int)
        content = details(self.storage, max(valid, key=lambda c: c.epoch), **kinds)
        return Receipt(**{name: content[name] for name in Receipt.__dataclass_fields__})

    def parts(self, shard: FileInfo) -> TableParts:
        """Where what is scored of a shard is kept until the shard is committed."""
        name = f"{shard_id(shard.url)}.{source_version(shard)}"
        return TableParts(self.storage, self.storage.join(self.parts_url, name))

    @property
    def parts_url(self) -> str:
        """The folder with the parts of all shards of this run."""
        return self.storage.join(self.output, "parts", self.fingerprint)

    def clear_parts(self) -> None:
        """All parts go, of whatever run: for when every shard is committed."""
        if self.fence.is_open():
            self.storage.discard(self.storage.join(self.output, "parts"), recursive=True)

    def clear_orphans(self, done: Iterable[Commit]) -> None:
        """Files that killed attempts at committed shards left go; nobody would read them.

        Only scores partitioned by a field and later epochs can leave some behind: by hash, the next
        attempt of the first overwrites. One listing of each folder.
        """
        done = list(done)
        if self.layout.by is None and self.fence.epoch == 1:
            return
        self.fence.require()
        for kind, stem in self._stems().items():
            stems = {commit.shard_id: stem(commit) for commit in done}
            for info in self.storage.list(self.storage.join(self.output, kind)):
                name = self.storage.name(info.url).removesuffix(".parquet")
                known = [stems[one] for one in _shards_of(name) if one in stems]
                if known and name not in known and epoch_of(name) <= self.fence.epoch:
                    self.storage.discard(info.url)

    def _stems(self) -> dict[str, Callable[[Commit], str]]:
        """Folder of files → what those of a commit are called, without the extension."""
        return {"scores": attrgetter("stem"), "errors": attrgetter("error_stem")}

    def known_parts(self) -> dict[str, list[str]]:
        """Names of parts that an earlier attempt left, by the URL of their folder; one listing."""
        found: dict[str, list[str]] = {}
        for info in self.storage.list(self.parts_url):
            folder, _, name = info.url.rpartition("/")
            found.setdefault(folder, []).append(name)
        return found

    def data_url(self, kind: str, shard_url: str, epoch: int | None = None) -> str:
        """Where the ``scores`` or ``errors`` of a shard go in a partition by hash.

        Args:
            epoch: Of who writes; default: this one's.
        """
        partition, epoch = self.layout.by_hash(shard_url), epoch or self.fence.epoch
        name = f"{shard_stem(shard_id(shard_url), self.fingerprint, epoch)}.parquet"
        return self.storage.join(self.output, kind, partition, name)

    def files(self, kind: str, shard_url: str, marker: str) -> list[str]:
        """The ``scores`` or ``errors`` files of a commit, as its marker lists them."""
        listed = self._listed(marker)
        found = [url for url in listed if url.startswith(self.storage.join(self.output, kind, ""))]
        # A marker of an earlier version of this tool lists none.
        return found if listed else [self.data_url(kind, shard_url, 1)]

    def _listed(self, marker: str) -> list[str]:
        commit = parse_marker(marker)
        if commit is None or not self.storage.exists(marker):
            return []
        files = details(self.storage, commit).get("files", {})
        return [self.storage.join(self.output, name) for name in files]

    def write_errors(self, shard_url: str, errors: pa.Table) -> dict[str, str]:
        """The failures of a shard."""
        return self._write(self.data_url("errors", shard_url), errors, error_file)

    def write_missing(self, shard_url: str, errors: pa.Table) -> None:
        """That a shard is not there: the same whoever writes it, and vouched for by no marker."""
        self._write(self.data_url("errors", shard_url, 1), errors, error_file)

    def _write(self, url: str, table: pa.Table, encode: Encode) -> dict[str, str]:
        """URL and SHA-256 of what was written; without rows nothing is, and an old file goes."""
        if not table.num_rows:
            self.storage.discard(url)
            return {}
        data = encode(table, self.fingerprint)
        self.storage.write_atomic(url, data)
        return {url: hashlib.sha256(data).hexdigest()}


def commit_log(run: Run) -> CommitLog:
    """The commit log of a run."""
    layout = Partitioning.of(run.config.scoring)
    return CommitLog(run.storage, run.output, run.fingerprint, layout, run.fence)


def _shards_of(stem: str) -> tuple[str, ...]:
    """Ids of shards that a file of this name may be of: by hash, by hash of an epoch, by field."""
    whole = re.sub(r"\.e\d+$", "", stem)
    return (stem, whole.rsplit(".", 1)[0], whole.rsplit(".", 3)[0])
