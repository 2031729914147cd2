"""Scored rows with the value of a field beside each, streamed: what domains are counted from.

label, split, group, modalities    columns of the scores
shard                              the shard's name
partition                          the folder that the row lies in, without ``partition=``
host                               host of the URL in a JSON field
json.<path>, or <path>             a field of the samples' JSON, from the catalogue
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.progress import Progress
from multimem_ray.results.catalogue import URL
from multimem_ray.results.joined import CatalogueJoin
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import FileInfo
from multimem_ray.store.partitioning import NULL

HOST, SHARD, PARTITION = "host", "shard", "partition"
COLUMNS = ("label", "split", "group", "modalities")
VALUE = "domain_value"
_HOST = (
    rf"nullif(regexp_extract(lower({VALUE}), "
    r"'^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^/?#:]+)', 1), '')"
)


@dataclass
class DomainRows:
    """Rows of a run by a field.

    Args:
        table: The scores of the run.
        by: See above.
        url_field: JSON field that holds the URL, for ``host``.
    """

    table: ScoreTable
    by: str
    url_field: str = URL

    @property
    def missed(self) -> int:
        """Scored rows that the catalogue lacked, of the last pass."""
        return 0 if self._plain else self._join.missed

    @property
    def name(self) -> str:
        """The field in full: ``json.source``, ``host of json.url``."""
        if self.by == HOST:
            return f"host of {self._path(self.url_field)}"
        return self.by if self._plain else self._path(self.by)

    @property
    def sql(self) -> str:
        """The value of the domain, over rows with :data:`VALUE`."""
        return _HOST if self.by == HOST else VALUE

    @property
    def _plain(self) -> bool:
        return self.by in {*COLUMNS, SHARD, PARTITION}

    @property
    def _field(self) -> str:
        return self._path(self.url_field if self.by == HOST else self.by)

    @staticmethod
    def _path(name: str) -> str:
        return name if name.startswith("json.") else f"json.{name}"

    def prepare(self, progress: Progress | None = None) -> None:
        """Read the shards for the field if they were not catalogued with it.

        Raises:
            ConfigError: The scores have no such column, or there are no shards to read.
            StorageError: A shard is not there any more.
        """
        if self.by in COLUMNS:
            self.table.require(self.by)
        elif not self._plain:
            self._join.prepare(progress)

    @cached_property
    def _join(self) -> CatalogueJoin:
        return CatalogueJoin(self.table, [self._field])

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some stored columns of all scored rows, and :data:`VALUE`."""
        if self.by == PARTITION:
            for value, files in self._partitions():
                for batch in self.table.batches(columns, files=files):
                    yield _with(batch, pa.repeat(pa.scalar(value, pa.string()), len(batch)))
            return
        needed = [self.by] if self.by in COLUMNS else ["shard", "index"]
        for batch in self._valued([*dict.fromkeys([*columns, *needed])]):
            yield batch.select([*columns, VALUE])

    def _valued(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        batches = self.table.batches(columns)
        if self.by == "modalities":
            for batch in batches:
                yield _with(batch, pc.binary_join(batch["modalities"], "+"))
        elif self.by in {*COLUMNS, SHARD}:
            for batch in batches:
                yield _with(batch, batch[self.by])
        else:
            for batch in self._join.beside(batches):
                yield _with(batch, batch[self._field])

    def _partitions(self) -> Iterator[tuple[str | None, list[FileInfo]]]:
        def folder(file: FileInfo) -> str:
            return file.url.rsplit("/", 2)[-2].partition("=")[2]

        for name, files in groupby(sorted(self.table.score_files, key=folder), folder):
            yield None if name == NULL else unquote(name), list(files)


def _with(batch: pa.RecordBatch, values: pa.Array) -> pa.RecordBatch:
    return batch.append_column(VALUE, values.cast(pa.string()))
