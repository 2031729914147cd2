"""The catalogue of a run: what its shards say of every sample beyond the scores, kept beside them.

    catalogue/<shard>.<version>.<fields>.parquet    a row per readable sample, in the shard's order

Scores know a sample by key, shard and content. Who asks by URL, or by a field of the samples' JSON,
needs that field of every sample, held-out ones included: it is read from the shards once, and
serves without them from then on. A shard that was replaced, or further fields, is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multimem_ray.arrow_files import ParquetFile
from multimem_ray.config import digest
from multimem_ray.errors import ConfigError, SampleError, StorageError
from multimem_ray.modalities import registry
from multimem_ray.modalities.content import content_name
from multimem_ray.modalities.fields import Fields
from multimem_ray.prefetch import in_order
from multimem_ray.progress import Progress
from multimem_ray.run import Run, load_run
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.names import shard_id, source_version
from multimem_ray.store.tables import SHARDS, read_shards, read_table

FOLDER = "catalogue"
URL = "json.url"
"""Kept of every sample, whatever else is asked for."""

_IDENTITY = ("key", "shard", "index", "content", "held_out")
_ROWS, _THREADS = 4096, 4
_AGAIN = "remove it and run `multimem catalogue` again: only this shard is read anew"


class Catalogue:
    """What is known of a run's samples without its shards, as far as it was read.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        storage: How to reach it, and the shards.
    """

    def __init__(self, output: str, storage: Storage) -> None:
        self.output, self.storage = output, storage

    @cached_property
    def run(self) -> Run:
        """The run, with its held-out shards where there are such."""
        content = load_run(self.output, self.storage)
        run = Run.from_json(content)
        registry.load_plugins(run.config.data.plugins)
        # shards.parquet lists them behind the others.
        apart = self.shards[len(self.shards) - int(content.get("held_out_shards", 0)) :]
        return replace(run, held_out_urls=frozenset(shard.url for shard in apart))

    @cached_property
    def shards(self) -> list[FileInfo]:
        """The shards of the run, as they were when it was opened; stored embeddings have none."""
        return read_shards(self.storage, self.output)

    @cached_property
    def files(self) -> dict[str, FileInfo]:
        """The newest catalogue file of each shard that is still the same; by URL of the shard."""
        listed = self.storage.list(self.storage.join(self.output, FOLDER), recursive=False)
        by_stem: dict[str, FileInfo] = {}
        for file in listed:
            stem, _, last = self.storage.name(file.url).removesuffix(".parquet").rpartition(".")
            if last:
                by_stem[stem] = file
        stems = {shard.url: _stem(shard) for shard in self.shards}
        return {url: by_stem[stem] for url, stem in stems.items() if stem in by_stem}

    @property
    def whole(self) -> bool:
        """Whether every shard of the run is catalogued."""
        return bool(self.shards) and len(self.files) == len(self.shards)

    @cached_property
    def fields(self) -> list[str]:
        """JSON fields that are kept of every sample; [] before anything is catalogued."""
        kept = [set(self._names(file)) for file in self._kinds.values()]
        return sorted(set.intersection(*kept) - set(_IDENTITY)) if kept else []

    @property
    def state(self) -> list[str]:
        """Changes when the catalogue is read anew for further fields; [] until it is whole."""
        return sorted(self._kinds) if self.whole else []

    @property
    def _kinds(self) -> dict[str, FileInfo]:
        """A file of each set of fields, by the digest of them in its name."""
        return {file.url.rsplit(".", 2)[-2]: file for file in self.files.values()}

    def _names(self, file: FileInfo) -> list[str]:
        with self.storage.open(file.url) as stream:
            return list(ParquetFile(stream, file.url).schema_arrow.names)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows of what is catalogued, in the order of the shards; small files are fetched ahead.

        Raises:
            StorageError: A file cannot be read.
        """

        def read(file: FileInfo) -> list[pa.RecordBatch]:
            return list(read_table(self.storage, file.url, _AGAIN, columns).to_batches())

        for batches in in_order(read, self.files.values(), _THREADS):
            yield from batches

    def rows_of(self, shard: str, columns: Sequence[str]) -> pa.Table:
        """Rows of one catalogued shard, given by its URL.

        Raises:
            StorageError: The file cannot be read.
        """
        return read_table(self.storage, self.files[shard].url, _AGAIN, columns)

    def where(self, column: str, values: Iterable[str], columns: Sequence[str]) -> pa.Table:
        """Rows whose column has one of the values.

        Args:
            columns: Of the result, beside that column.
        """
        asked, names = pa.array(list(values), pa.string()), [*dict.fromkeys([column, *columns])]
        schema = pa.schema([_field(name) for name in names])
        kept = (
            batch.filter(pc.is_in(batch[column], value_set=asked)) for batch in self.batches(names)
        )
        return pa.Table.from_batches((rows.cast(schema) for rows in kept), schema)

    def ensure(self, fields: Sequence[str] = (), progress: Progress | None = None) -> Catalogue:
        """Read the shards that are not catalogued with all these fields; returns itself.

        Args:
            fields: Such as ``json.source``; those of before are kept.

        Raises:
            ConfigError: A field is none of the samples' JSON, or the run knows no shards.
            StorageError: A shard is not there any more.
        """
        wrong = [name for name in fields if not name.startswith("json.") or name == "json."]
        if wrong:
            raise ConfigError(f"catalogue: '{wrong[0]}' is no JSON field; write json.{wrong[0]}")
        if not self.shards:
            raise ConfigError(
                f"{self.output}: no {SHARDS}, so it is not known which shards to read; stored "
                "embeddings have none"
            )
        names = sorted({URL, *self.fields, *fields})
        if self.whole and set(names) <= set(self.fields):
            return self
        progress = progress or Progress()
        last = digest(names)
        left = [s for s in self.shards if not self._has(s, last)]
        progress.say(f"reading {len(left)} shards for {', '.join(names)}; kept in {FOLDER}/")
        with progress.task("catalogue", len(left), unit="shards") as shown:
            for done, shard in enumerate(left, 1):
                absent = self._write(shard, names, last) & set(fields)
                if done == 1 and absent:
                    told = f"no sample of {shard.url} has {', '.join(sorted(absent))}"
                    progress.say(f"{told}; if that is a mistake, stop here (Ctrl-C)")
                shown.update(done)
        for name in ("files", "fields"):
            self.__dict__.pop(name, None)
        return self

    def _has(self, shard: FileInfo, last: str) -> bool:
        file = self.files.get(shard.url)
        return file is not None and file.url.endswith(f".{last}.parquet")

    def _write(self, shard: FileInfo, fields: Sequence[str], last: str) -> set[str]:
        """Catalogue a shard; the fields that none of its samples has."""
        if self.storage.info(shard.url).version != shard.version:
            raise StorageError(
                f"{shard.url}: another file than the run knows; put the old one back"
            )
        name, buffer = f"{_stem(shard)}.{last}.parquet", BytesIO()
        url = self.storage.join(self.output, FOLDER, name)
        schema = pa.schema([_field(name) for name in (*_IDENTITY, *fields)])
        with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
            waiting: list[dict[str, Any]] = []
            absent = set(fields)
            limits = self.run.config.data.limits
            for item in read_shard(shard.url, self.storage, limits=limits):
                if isinstance(item, Sample):
                    waiting.append(self._row(item, fields))
                    absent -= {name for name in absent if waiting[-1].get(name) is not None}
                if len(waiting) == _ROWS:
                    writer.write_table(pa.Table.from_pylist(waiting, schema))
                    waiting = []
            writer.write_table(pa.Table.from_pylist(waiting, schema))
        before = self.files.get(shard.url)
        self.storage.write_atomic(url, buffer.getvalue())
        if before is not None and before.url != url:
            self.storage.remove(before.url)
        return absent

    def _row(self, sample: Sample, fields: Sequence[str]) -> dict[str, Any]:
        row: dict[str, Any] = {
            "key": sample.key,
            "shard": sample.shard,
            "index": sample.index,
            "content": None,
            "held_out": None,
        }
        try:
            row["content"] = content_name(sample, self._fields)
            group = self.run.group(sample)
            row["held_out"] = bool(self.run.held_out_rule.is_held_out([group], sample.shard)[0])
            return row | {name: as_text(sample.field(name)) for name in fields}
        except SampleError:
            return row  # it is in errors/, with the reason

    @cached_property
    def _fields(self) -> Fields:
        return Fields(self.run.fields)


def _stem(shard: FileInfo) -> str:
    return f"{shard_id(shard.url)}.{source_version(shard)}"


def as_text(value: Any) -> str | None:
    """A JSON value as a column of text has it."""
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)


def _field(name: str) -> pa.Field:
    return pa.field(name, {"index": pa.int64(), "held_out": pa.bool_()}.get(name, pa.string()))
