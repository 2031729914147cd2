"""The score files of a run as one table that is never in memory at once.

Scoring writes one Parquet file per shard and, when the file is complete, one marker under
``commits/``. Only marked shards are read: a file that a killed run left without its marker is
not part of the result, and will be written again. Small files are fetched ahead by a few
threads, which is what an object store needs; large ones are streamed batch by batch. Either
way the order is that of the shards' names, so everything computed from it is reproducible.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import combinations
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.arrow_files import ParquetFile
from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.results.committed import error_files, in_partition, score_files
from multimem_ray.results.spans import Pick, spans_of
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.markers import Commit, load_commits
from multimem_ray.store.names import shard_id
from multimem_ray.store.schema import ATTRIBUTION, PAIR

Progress = Callable[[int, int], None]
"""Called with (files done, files in total)."""

BATCH_ROWS = 65_536
THREADS = 8
AHEAD_BYTES = 32 << 20  # files up to this size are fetched whole by the threads


class ScoreTable:
    """Scores and errors of one run, streamed.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        storage: How to reach it.
        batch_rows: Most rows in one batch.
        partition: Only the scores of one partition, such as ``source=tape 7``.
    """

    def __init__(
        self,
        output: str,
        storage: Storage,
        *,
        batch_rows: int = BATCH_ROWS,
        partition: str | None = None,
    ) -> None:
        self.output = output
        self.storage = storage
        self.batch_rows = batch_rows
        self.partition = partition

    @cached_property
    def commits(self) -> list[Commit]:
        """Every committed shard, in the order of its name.

        A marker with the fingerprint of an earlier configuration (a run that was given more
        models since) does not count: its shard is about to be scored again.
        """
        current = self.document("run.json").get("fingerprint")
        found = {c.shard_id: c for c in load_commits(self.storage, self.output) if c.run == current}
        return [found[name] for name in sorted(found)]

    @cached_property
    def score_files(self) -> list[FileInfo]:
        """The committed score files, in the order of the shards' names.

        Raises:
            ConfigError: There is no such partition.
            StorageError: Files of a commit are lost.
        """
        return [file for files in self._score_files.values() for file in files]

    def files_of(self, shards: Iterable[str]) -> list[FileInfo]:
        """The score files of some shards, given by URL."""
        wanted = {shard_id(url) for url in shards}
        return [f for name, files in self._score_files.items() if name in wanted for f in files]

    @cached_property
    def _score_files(self) -> dict[str, list[FileInfo]]:
        found = score_files(self.storage, self.output, self.commits)
        return found if self.partition is None else in_partition(found, self.partition)

    @cached_property
    def error_files(self) -> list[FileInfo]:
        """The committed error files, in the order of the shards' names, and missing shards'.

        A missing shard is never committed: its only row says that it is not there.
        """
        missing = [str(url) for url in self.document("run.json").get("missing") or []]
        return error_files(self.storage, self.output, self.commits, missing)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the score files; empty when no sample is scored yet."""
        if not self.score_files:
            return pa.schema([])
        with self._open(self.score_files[0]) as file:
            return ParquetFile(file, self.score_files[0].url).schema_arrow

    @property
    def columns(self) -> list[str]:
        """Names of the score columns."""
        return list(self.schema.names)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, sorted."""
        names = self.columns
        return tuple(sorted(c[len(ATTRIBUTION) :] for c in names if c.startswith(ATTRIBUTION)))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Modality pairs that have a score column of their own."""
        known = set(self.columns)
        return [p for p in combinations(self.modalities, 2) if f"{PAIR}{p[0]}_{p[1]}" in known]

    def batches(
        self,
        columns: Sequence[str],
        *,
        files: Sequence[FileInfo] | None = None,
        progress: Progress | None = None,
        by: str = "",
        pick: Pick | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream some columns of all rows (or of some files) in a fixed order.

        Args:
            columns: Names of the columns.
            files: Some of ``score_files``.
            progress: Called after each file.
            by: With ``pick``: the column that decides which row groups are read.
            pick: Called in several threads with the statistics of that column in a file's row
                groups; says which to read.

        Raises:
            ConfigError: A column does not exist; names the nearest one.
            StorageError: A file cannot be read.
        """
        for column in columns:
            self.require(column)
        chosen = self.score_files if files is None else files
        yield from self._read(chosen, columns, progress, pick and _Picked(by, pick))

    def error_batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows of ``errors/``: shard, key, index, stage, error, detail."""
        yield from self._read(self.error_files, None, None)

    def require(self, column: str) -> None:
        """Raise ConfigError unless the column exists (any name passes while nothing is scored)."""
        if self.columns and column not in self.columns:
            raise ConfigError(
                f"{self.output}: there is no score column '{column}'{nearest(column, self.columns)}"
            )

    def document(self, *parts: str) -> dict[str, Any]:
        """A JSON file of the run such as ``run.json``; {} if it was not written (yet)."""
        url = self.storage.join(self.output, *parts)
        if not self.storage.exists(url):
            return {}
        return _parse(url, self.storage.read_bytes(url))

    def _read(
        self,
        files: Sequence[FileInfo],
        columns: Sequence[str] | None,
        progress: Progress | None,
        picked: _Picked | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches file by file, with at most ``THREADS`` small files fetched ahead."""
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[tuple[FileInfo, Any]] = deque()
            upcoming = iter(files)
            done = 0
            while True:
                while len(waiting) < THREADS and (file := next(upcoming, None)) is not None:
                    small = file.size <= AHEAD_BYTES
                    ahead = pool.submit(self._whole, file, columns, picked) if small else None
                    waiting.append((file, ahead))
                if not waiting:
                    return
                file, future = waiting.popleft()
                found = self._stream(file, columns, picked) if future is None else future.result()
                yield from found
                done += 1
                if progress is not None:
                    progress(done, len(files))

    def _open(self, file: FileInfo) -> BinaryIO:
        # One GET of a small object is cheaper than footer, seek and column ranges one by one.
        if file.size <= AHEAD_BYTES and self.storage.is_remote(file.url):
            return BytesIO(self.storage.read_bytes(file.url))
        return self.storage.open(file.url)

    def _whole(
        self, file: FileInfo, columns: Sequence[str] | None, picked: _Picked | None
    ) -> list[pa.RecordBatch]:
        return list(self._stream(file, columns, picked))

    def _stream(
        self, file: FileInfo, columns: Sequence[str] | None, picked: _Picked | None
    ) -> Iterator[pa.RecordBatch]:
        try:
            with self._open(file) as handle:
                parquet = ParquetFile(handle, file.url)
                wanted = None if columns is None else list(columns)
                groups = None if picked is None else picked.groups(parquet.metadata)
                yield from parquet.iter_batches(
                    self.batch_rows, row_groups=groups, columns=wanted, use_threads=False
                )
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"{file.url}: cannot be read as Parquet ({error}). Remove this file and its marker "
                "in commits/, and run the audit again: only this shard is scored anew."
            ) from error


@dataclass(frozen=True)
class _Picked:
    """Row groups of a file, chosen by the statistics of a column."""

    by: str
    pick: Pick

    def groups(self, metadata: pq.FileMetaData) -> list[int]:
        return list(self.pick(spans_of(metadata, self.by)))


def _parse(url: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StorageError(_bad_document(url, str(error))) from error
    if not isinstance(value, dict):
        raise StorageError(_bad_document(url, "not a JSON object"))
    return value


def _bad_document(url: str, reason: str) -> str:
    return f"{url}: damaged ({reason}). Remove it and run the audit again: the rest is kept."
