"""Where score rows go below ``scores/``: by a hash of their shard, or by a field of the sample.

    scores/partition=007/<shard>.parquet                           by hash: one file for a shard
    scores/source=<value>/<shard>.<run>.<source>.<rows>.parquet    by field: one for each value

By field, a shard makes several files, and which ones depends on what could be scored. Their names
say to which commit they belong: shard, configuration, version of the shard, and a digest of the
rows. A file that a killed attempt or an older version left belongs to no commit and is not read.
Values are escaped as Hive does, so that DuckDB, Polars and Spark give them back as they were.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.config import ScoringConfig
from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage
from multimem_ray.store.names import partition_of
from multimem_ray.store.schema import INDEX, VALUE, is_score_column

NULL = "__HIVE_DEFAULT_PARTITION__"
OTHER = "__other__"
_MOST_BYTES = 200  # of an escaped value: file systems allow 255 for a name


@dataclass(frozen=True)
class Partitioning:
    """How ``scores/`` is partitioned.

    Args:
        partitions: Number of partitions by hash; errors are always partitioned by it.
        by: Field that partitions scores; None = the hash.
        most: Most distinct values of the field.
    """

    partitions: int
    by: str | None = None
    most: int = 1000

    @classmethod
    def of(cls, config: ScoringConfig) -> Partitioning:
        """As configured."""
        return cls(config.partitions, config.partition_by, config.max_partition_values)

    def by_hash(self, shard_url: str) -> str:
        """Folder of a shard below ``scores/`` or ``errors/``."""
        return partition_of(shard_url, self.partitions)

    def folder(self, value: str | None) -> str:
        """Folder of a value of the field, such as ``source=a%20b``."""
        return f"{hive_key(self.by or '')}={escaped(value)}"

    def pieces(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Folder and rows of each value of the field, without the column that tells it."""
        folders = [self.folder(value) for value in rows[VALUE].to_pylist()]
        column, rows = pa.array(folders, pa.string()), rows.drop_columns([VALUE])
        for folder in sorted(set(folders)):
            yield folder, rows.filter(pc.equal(column, folder))

    def admit(self, storage: Storage, scores_url: str, folders: set[str], known: set[str]) -> None:
        """Raise ConfigError if there are more values than allowed; ``known`` is brought up to date.

        Args:
            scores_url: The folder ``scores/``; listed only for a value that is not known.
            folders: Of the rows to be written.
            known: Folders seen before by the caller.
        """
        if folders <= known:
            return
        known |= folders | set(storage.folders(scores_url))
        if len(known) > self.most:
            raise ConfigError(
                f"scoring.partition_by: '{self.by}' has more than {self.most} distinct values "
                f"({len(known)} so far), and each makes a file for every shard; resume with a "
                "higher scoring.max_partition_values, or use another output and a coarser field"
            )


def hive_key(by: str) -> str:
    """The name before ``=`` for a field: its last part, or another one if a column has that."""
    name = re.sub(r"\W+", "_", by.rsplit(".", 1)[-1])
    return f"partition_{name}" if is_score_column(name) else name


def escaped(value: str | None) -> str:
    """A value as part of a folder's name.

    Absent and empty ones become the default partition, as Hive has it; what is too long for a
    folder's name goes to ``__other__``.
    """
    if not value:
        return NULL
    text = quote(value.encode("utf-8", "replace"), safe="")
    return text if len(text) <= _MOST_BYTES else OTHER


def value_of(url: str) -> str | None:
    """The value that the folder of a score file stands for."""
    text = url.rsplit("/", 2)[-2].partition("=")[2]
    return None if text == NULL else unquote(text)


def rows_digest(rows: pa.Table) -> str:
    """Eight hex digits that tell which samples of a shard the rows are."""
    order = rows[INDEX].sort().to_numpy()
    return hashlib.blake2b(order.astype("<i8").tobytes(), digest_size=4).hexdigest()
