"""The scores of a run as one table that is never in memory at once.

Scoring writes one Parquet file per shard and, when the file is complete, one marker under
``commits/``. Only marked shards are read: a file that a killed run left without its marker is
not part of the result, and will be written again.

``batches`` streams columns in the order of the shards' names; small files are fetched ahead by a
few threads, which is what an object store needs. ``query`` and ``stream`` ask DuckDB: files on a
disk are read by DuckDB itself, which leaves out the row groups that cannot matter, and those in an
object store come as batches. It keeps to ``MEMORY`` and spills to a temporary folder.
"""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cached_property
from io import BytesIO
from itertools import combinations
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType

from multimem_ray.arrow_files import READ_ERRORS, ParquetFile, read_footer
from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.own_files import read_own
from multimem_ray.results.verdict import DERIVED, Verdict, stored_columns
from multimem_ray.storage import FileInfo, Storage, local_path
from multimem_ray.store.committed import error_files, in_partition, score_files
from multimem_ray.store.footers import FooterCheck
from multimem_ray.store.markers import Commit, valid_commits
from multimem_ray.store.names import shard_id
from multimem_ray.store.schema import ATTRIBUTION, PAIR, SCORE
from multimem_ray.store.tables import read_table

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (files done, files in total)."""

BATCH_ROWS = 65_536
THREADS = 8
AHEAD_BYTES = 32 << 20  # files up to this size are fetched whole by the threads
BLEND_JSON, BLEND_PARQUET = "blend.json", "blend.parquet"
BLENDED = ("multimem_blend", "multimem_blend_sd")
"""Columns that rows get where proxies were scored as well; see :mod:`.blend`."""
MEMORY = "2GB"  # of DuckDB; beyond it, it spills


_BLEND_AGAIN = "remove it and run the audit again: the blend is written anew"


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
        current = str(self.document("run.json").get("fingerprint"))
        commits = valid_commits(self.storage, self.output, current)
        return sorted(commits, key=lambda commit: commit.shard_id)

    @cached_property
    def score_files(self) -> list[FileInfo]:
        """The committed score files, in the order of the shards' names.

        Raises:
            ConfigError: There is no such partition.
            StorageError: Files of a commit are lost.
        """
        return [file for files in self._files_by_shard.values() for file in files]

    def files_of(self, shards: Iterable[str]) -> list[FileInfo]:
        """The score files of some shards, given by URL."""
        names = {shard_id(url) for url in shards}
        return [f for name, files in self._files_by_shard.items() if name in names for f in files]

    @cached_property
    def _files_by_shard(self) -> dict[str, list[FileInfo]]:
        every = self._every_file
        return every if self.partition is None else in_partition(every, self.partition)

    @cached_property
    def _every_file(self) -> dict[str, list[FileInfo]]:
        return score_files(self.storage, self.output, self.commits)

    @cached_property
    def _scores_check(self) -> FooterCheck:
        rows = {commit.shard_id: commit.rows for commit in self.commits}
        return FooterCheck(self.commits, _urls(self._every_file), rows)

    @cached_property
    def _errors_check(self) -> FooterCheck:
        errors = {commit.shard_id: commit.errors for commit in self.commits}
        return FooterCheck(self.commits, _urls(self._error_files_by_shard), errors)

    @property
    def error_files(self) -> list[FileInfo]:
        """The committed error files, in the order of the shards' names, and missing shards'.

        A missing shard is never committed: its only row says that it is not there.
        """
        return [file for files in self._error_files_by_shard.values() for file in files]

    @cached_property
    def _error_files_by_shard(self) -> dict[str, list[FileInfo]]:
        missing = [str(url) for url in self.document("run.json").get("missing") or []]
        return error_files(self.storage, self.output, self.commits, missing)

    @property
    def shard_parts(self) -> int:
        """Parts of a shard's path that tell it from the others of the run."""
        return int(self.document("run.json").get("shard_parts", 1))

    @cached_property
    def _stored_schema(self) -> pa.Schema:
        if not self.score_files:
            return pa.schema([])
        first = self.score_files[0]
        with self.opened(first) as parquet:
            return parquet.schema_arrow

    @property
    def stored(self) -> list[str]:
        """Names of the columns of the score files; empty when no sample is scored yet."""
        return list(self._stored_schema.names)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns that can be read: those of the files, and those of the verdict."""
        schema = self._stored_schema
        if SCORE in schema.names:
            for name in DERIVED:
                schema = schema.append(pa.field(name, pa.float64()))
        for name in BLENDED if self.blend else ():
            schema = schema.append(pa.field(name, pa.float64()))
        return schema

    @cached_property
    def blend(self) -> dict[str, Any] | None:
        """What ``blend.json`` says, if it is of these very rows; see :mod:`.blend`."""
        written = self.document(BLEND_JSON)
        return written if written and written.get("of") == self.version else None

    @cached_property
    def _blend_rows(self) -> pa.Table:
        url = self.storage.join(self.output, BLEND_PARQUET)
        return read_table(self.storage, url, _BLEND_AGAIN, ("shard", "index", *BLENDED))

    @cached_property
    def verdict(self) -> Verdict:
        """What all scores of the run say about each: as the summary has it, or estimated anew."""
        if self.partition is not None:
            return ScoreTable(self.output, self.storage).verdict
        known = self.document("summary.json").get("verdict")
        if isinstance(known, dict) and known.get("of") == self.version:
            try:
                return Verdict.from_json(known)
            except (KeyError, TypeError, ValueError) as error:
                logger.warning("%s/summary.json: its verdict is damaged (%s)", self.output, error)
        from multimem_ray.results.estimate import estimate

        return estimate(self)

    @property
    def version(self) -> dict[str, Any]:
        """Tells apart what the rows were at different times."""
        current = self.document("run.json").get("fingerprint")
        rows = sum(commit.rows for commit in self.commits)
        return {"fingerprint": current, "shards": len(self.commits), "rows": rows}

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
    ) -> Iterator[pa.RecordBatch]:
        """Stream some columns of all rows (or of some of ``score_files``) in a fixed order.

        Raises:
            ConfigError: A column does not exist; names the nearest one.
            StorageError: A file cannot be read.
        """
        self.require(*columns)
        chosen = self.score_files if files is None else files
        if not any(column in (*DERIVED, *BLENDED) for column in columns):
            yield from self._read(chosen, columns, self._scores_check, progress)
            return
        names = ", ".join(f'"{column}"' for column in columns)
        schema = pa.schema([self.schema.field(column) for column in columns])
        for batch in self.stream(f"SELECT {names} FROM scores", columns, files=chosen):
            yield batch.cast(schema)  # DuckDB has lists of any length only
        if progress is not None:
            progress(len(chosen), len(chosen))

    def error_batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows of ``errors/``: shard, key, index, stage, error, detail."""
        yield from self._read(self.error_files, None, self._errors_check)

    def stream(
        self,
        sql: str,
        columns: Sequence[str],
        *,
        files: Sequence[FileInfo] | None = None,
        parameters: Mapping[str, Any] | None = None,
        tables: Mapping[str, Any] | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Batches of what DuckDB answers; nothing while nothing is scored.

        Args:
            sql: A query; ``scores`` is the table.
            columns: Columns that it uses.
            files: Some of ``score_files``.
            parameters: Values for ``$name`` in the query.
            tables: Arrow tables or readers that the query uses beside ``scores``.
            functions: Functions of two strings, on Arrow arrays, that give a number.

        Raises:
            ConfigError: A column does not exist; names the nearest one.
            StorageError: A file cannot be read.
        """
        self.require(*columns)
        chosen = self.score_files if files is None else files
        if not chosen:
            return
        try:
            with open_engine() as engine:
                for name, table in (tables or {}).items():
                    engine.register(name, table)
                for name, function in (functions or {}).items():
                    engine.create_function(
                        name, function, ["VARCHAR", "VARCHAR"], "DOUBLE", type=PythonUDFType.ARROW
                    )
                engine.register("scores", self._relation(engine, columns, chosen))
                yield from engine.sql(sql, params=parameters or None).to_arrow_reader(
                    self.batch_rows
                )
        except duckdb.Error as error:
            # DuckDB seldom says which file is at fault: reading them one by one does.
            deque(self._read(chosen, columns, self._scores_check), maxlen=0)
            raise StorageError(f"{self.output}: the scores cannot be queried ({error})") from error

    def query(self, sql: str, columns: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """The rows that DuckDB answers; see :meth:`stream`."""
        return [row for b in self.stream(sql, columns, **options) for row in b.to_pylist()]

    def require(self, *columns: str) -> None:
        """Raise ConfigError unless the columns exist (any name passes while nothing is scored)."""
        for column in columns:
            if self.columns and column not in self.columns:
                raise ConfigError(
                    f"{self.output}: there is no score column '{column}'"
                    f"{nearest(column, self.columns)}"
                )

    def document(self, *parts: str) -> dict[str, Any]:
        """A JSON file of the run such as ``run.json``; {} if it was not written (yet)."""
        url = self.storage.join(self.output, *parts)
        if not self.storage.exists(url):
            return {}
        return read_own(self.storage, url, "remove it and run the audit again: the rest is kept")

    def relation(
        self, engine: duckdb.DuckDBPyConnection, columns: Sequence[str] | None = None
    ) -> Any:
        """All rows with all columns, or at least these, as a relation of an open DuckDB.

        There must be rows.
        """
        self.require(*(columns or ()))
        return self._relation(engine, columns or self.columns, self.score_files)

    def _relation(
        self,
        engine: duckdb.DuckDBPyConnection,
        columns: Sequence[str],
        files: Sequence[FileInfo],
    ) -> Any:
        derived = [column for column in columns if column in DERIVED]
        base = stored_columns(self.stored) if derived else []
        blended = [column for column in columns if column in BLENDED]
        base += ["shard", "index"] if blended else []
        made_here = (*DERIVED, *BLENDED)
        names = list(dict.fromkeys([*(c for c in columns if c not in made_here), *base]))
        if not self.storage.is_remote(self.output):
            self._require_footers(files)
            # A run that a later version went on with has files with fewer columns.
            rows = engine.read_parquet(paths_of(files), hive_partitioning=False, union_by_name=True)
        else:
            schema = pa.schema([self._stored_schema.field(name) for name in names])
            batches = self._read(files, names, self._scores_check)
            reader = pa.RecordBatchReader.from_batches(schema, batches)
            rows = engine.from_arrow(reader)
        if derived:
            made = self.verdict.sql()
            rows = rows.project(", ".join(["*", *(f"{made[name]} AS {name}" for name in derived)]))
        if blended:
            rows = rows.join(engine.from_arrow(self._blend_rows), "shard, index", how="left")
        return rows

    def _require_footers(self, files: Sequence[FileInfo]) -> None:
        """Look at files that DuckDB will read itself."""

        def look(file: FileInfo) -> None:
            with _read_as_parquet(file), self.storage.open(file.url) as stream:
                self._scores_check.require(file.url, read_footer(stream, file.url))

        unknown = [file for file in files if not self._scores_check.known(file.url)]
        with ThreadPoolExecutor(THREADS) as pool:
            deque(pool.map(look, unknown), maxlen=0)

    def _read(
        self,
        files: Sequence[FileInfo],
        columns: Sequence[str] | None,
        check: FooterCheck,
        progress: Progress | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches file by file, with at most ``THREADS`` small files fetched ahead."""
        with ThreadPoolExecutor(THREADS) as pool:
            waiting: deque[tuple[FileInfo, Any]] = deque()
            upcoming = iter(files)
            for done in range(1, len(files) + 1):
                while len(waiting) < THREADS and (file := next(upcoming, None)) is not None:
                    small = file.size <= AHEAD_BYTES
                    ahead = pool.submit(self._whole, file, columns, check) if small else None
                    waiting.append((file, ahead))
                file, future = waiting.popleft()
                yield from (
                    self._decode(file, columns, check) if future is None else future.result()
                )
                if progress is not None:
                    progress(done, len(files))

    @contextmanager
    def opened(self, file: FileInfo) -> Iterator[ParquetFile]:
        """A score file, open, of which the footer is what its marker says.

        Raises:
            StorageError: It is not, or it cannot be read.
        """
        with _read_as_parquet(file), self._open(file) as stream:
            parquet = ParquetFile(stream, file.url)
            self._scores_check.require(file.url, parquet.metadata)
            yield parquet

    def _open(self, file: FileInfo) -> BinaryIO:
        # One GET of a small object is cheaper than footer, seek and column ranges one by one.
        if file.size <= AHEAD_BYTES and self.storage.is_remote(file.url):
            return BytesIO(self.storage.read_bytes(file.url))
        return self.storage.open(file.url)

    def _whole(
        self, file: FileInfo, columns: Sequence[str] | None, check: FooterCheck
    ) -> list[pa.RecordBatch]:
        return list(self._decode(file, columns, check))

    def _decode(
        self, file: FileInfo, columns: Sequence[str] | None, check: FooterCheck
    ) -> Iterator[pa.RecordBatch]:
        with _read_as_parquet(file), self._open(file) as handle:
            parquet = ParquetFile(handle, file.url)
            check.require(file.url, parquet.metadata)
            names = None if columns is None else list(columns)
            there = set(parquet.schema_arrow.names)
            for batch in parquet.iter_batches(self.batch_rows, columns=names, use_threads=False):
                yield batch if names is None else self._completed(batch, names, there)

    def _completed(
        self, batch: pa.RecordBatch, names: Sequence[str], there: set[str]
    ) -> pa.RecordBatch:
        """With nulls in columns that an earlier version did not write."""
        if there.issuperset(names):
            return batch
        kept = dict(zip(batch.schema.names, batch.columns, strict=True))
        empty = {
            n: pa.nulls(len(batch), self._stored_schema.field(n).type)
            for n in names
            if n not in kept
        }
        return pa.RecordBatch.from_pydict({n: (kept | empty)[n] for n in names})


@contextmanager
def _read_as_parquet(file: FileInfo) -> Iterator[None]:
    try:
        yield
    except READ_ERRORS as error:
        raise StorageError(
            f"{file.url}: cannot be read as Parquet ({error}). Remove its marker in commits/ and "
            "run `multimem score` again: only this shard is scored anew."
        ) from error


@contextmanager
def open_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory; beyond ``MEMORY`` it spills to a temporary folder."""
    with TemporaryDirectory(prefix="multimem-") as folder:
        threads = min(THREADS, os.cpu_count() or 1)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": folder,
            "threads": threads,
            # What a file asks for is no reason to fetch and load code.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with closing(duckdb.connect(config=settings)) as engine:
            yield engine


def paths_of(files: Sequence[FileInfo]) -> list[str]:
    """Paths on the disk, in which DuckDB finds no patterns."""
    return [re.sub(r"([*?[])", r"[\1]", str(local_path(file.url))) for file in files]


def _urls(files: Mapping[str, Sequence[FileInfo]]) -> dict[str, list[str]]:
    return {shard: [file.url for file in own] for shard, own in files.items()}
