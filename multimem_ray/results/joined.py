"""Fields of the samples' JSON beside scored rows, streamed.

The catalogue has a row per readable sample of a shard, and a file per shard; scored rows come shard
by shard, too, and are joined by shard and index. One that is not met there is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.errors import StorageError
from multimem_ray.prefetch import in_order
from multimem_ray.progress import Progress
from multimem_ray.results.catalogue import Catalogue
from multimem_ray.results.table import ScoreTable
from multimem_ray.store.names import shard_id

_THREADS = 4


class CatalogueJoin:
    """Joins scored rows with fields of the catalogue.

    Args:
        table: The scores of a run.
        fields: Such as ``json.source``.
    """

    def __init__(self, table: ScoreTable, fields: Sequence[str]) -> None:
        self.fields = list(fields)
        self.missed = 0
        self._table, self._catalogue = table, Catalogue(table.output, table.storage)

    def prepare(self, progress: Progress | None = None) -> None:
        """Read the shards for the fields if they were not catalogued with them.

        Raises:
            ConfigError: There are no shards to read.
            StorageError: A shard is not there any more.
        """
        self._catalogue.ensure(self.fields, progress)

    def beside(
        self, batches: Iterable[pa.RecordBatch], shards: Iterable[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows with a column of text for each field; null where a sample has none.

        Args:
            batches: With ``shard`` and ``index``, each of one shard alone.
            shards: URLs in the order of the batches; by default that of :meth:`ScoreTable.batches`.

        Raises:
            StorageError: A file cannot be read, or rows are of a shard that the run does not know.
        """
        catalogue, self.missed = self._catalogue, 0
        urls = {shard_id(shard.url): shard.url for shard in catalogue.shards}
        if shards is None:
            committed = (commit.shard_id for commit in self._table.commits if commit.rows)
            shards = [urls[name] for name in committed if name in urls]

        def read(url: str) -> tuple[str, pa.Table]:
            return url, catalogue.rows_of(url, ["index", *self.fields])

        known = [url for url in shards if url in catalogue.files]
        with closing(in_order(read, known, _THREADS)) as kept:
            shard, rows = next(kept, ("", None))
            for batch in batches:
                own = batch["shard"][0].as_py() if len(batch) else shard
                while shard != own and rows is not None:
                    shard, rows = next(kept, ("", None))
                if rows is None:
                    raise StorageError(
                        f"{self._table.output}: has scores of {own}, which its shards.parquet "
                        "lacks; the catalogue cannot be joined"
                    )
                places = pc.index_in(batch["index"], value_set=rows["index"].combine_chunks())
                self.missed += places.null_count
                told = [rows[name].combine_chunks().take(places) for name in self.fields]
                names = [*batch.schema.names, *self.fields]
                yield pa.RecordBatch.from_arrays([*batch.columns, *told], names)
