"""Scored rows with the value of a field beside each, streamed: what domains are counted from.

    label, split, group, modalities    columns of the scores
    shard                              the shard's name
    partition                          the folder that the row lies in, without ``partition=``
    host                               host of the URL in a JSON field
    json.<path>, or <path>             a field of the samples' JSON, from the catalogue

The catalogue has a row per readable sample of a shard; a scored row is joined by shard and index,
and one that is not met there is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.errors import StorageError
from multimem_ray.prefetch import in_order
from multimem_ray.progress import Progress
from multimem_ray.results.catalogue import URL, Catalogue
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import FileInfo
from multimem_ray.store.names import shard_id
from multimem_ray.store.partitioning import NULL

HOST, SHARD, PARTITION = "host", "shard", "partition"
COLUMNS = ("label", "split", "group", "modalities")
VALUE = "domain_value"
_THREADS = 4
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
    missed: int = field(default=0, init=False)
    """Scored rows that the catalogue lacked, of the last pass."""

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
            self._catalogue.ensure([self._field], progress)

    @cached_property
    def _catalogue(self) -> Catalogue:
        return Catalogue(self.table.output, self.table.storage)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some stored columns of all scored rows, and :data:`VALUE`."""
        self.missed = 0
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
            yield from self._catalogued(batches)

    def _catalogued(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows with their value from the catalogue; its files are read ahead, in their order."""
        catalogue, name = self._catalogue, self._field
        urls = {shard_id(shard.url): shard.url for shard in catalogue.shards}
        order = [urls[c.shard_id] for c in self.table.commits if c.rows and c.shard_id in urls]

        def read(url: str) -> tuple[str, pa.Table]:
            return url, catalogue.rows_of(url, ["index", name])

        with closing(in_order(read, order, _THREADS)) as kept:
            shard, rows = next(kept, ("", None))
            for batch in batches:
                own = batch["shard"][0].as_py()
                while shard != own and rows is not None:
                    shard, rows = next(kept, ("", None))
                if rows is None:
                    raise StorageError(
                        f"{self.table.output}: has scores of {own}, which its shards.parquet "
                        "lacks; the catalogue cannot be joined"
                    )
                places = pc.index_in(batch["index"], value_set=rows["index"].combine_chunks())
                self.missed += places.null_count
                yield _with(batch, rows[name].combine_chunks().take(places))

    def _partitions(self) -> Iterator[tuple[str | None, list[FileInfo]]]:
        def folder(file: FileInfo) -> str:
            return file.url.rsplit("/", 2)[-2].partition("=")[2]

        for name, files in groupby(sorted(self.table.score_files, key=folder), folder):
            yield None if name == NULL else unquote(name), list(files)


def _with(batch: pa.RecordBatch, values: pa.Array) -> pa.RecordBatch:
    return batch.append_column(VALUE, values.cast(pa.string()))
