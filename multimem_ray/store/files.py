"""The Parquet files of ``scores/`` and ``errors/``: their order, row groups and metadata.

Rows of a score file stand best first, in row groups with statistics: whoever looks for the top
reads the first group of a file and leaves out the others, by this tool or by any other. The
metadata says what wrote the file:

    multimem_ray            fingerprint of the run
    multimem_ray.version    version of the tool
    multimem_ray.format     version of this layout: it grows when a column changes its meaning
"""

from __future__ import annotations

import io
from functools import cache
from importlib import metadata

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multimem_ray.store.schema import INDEX, SCORE

FORMAT = "1"
ROW_GROUP_ROWS = 4096


def score_file(rows: pa.Table, fingerprint: str) -> bytes:
    """Score rows as Parquet: MultiMem descending, those without it last, ties by index."""
    order = [(SCORE, "descending"), (INDEX, "ascending")]
    ranked = rows.take(pc.sort_indices(rows, order))
    sorting = pq.SortingColumn.from_ordering(rows.schema, order, null_placement="at_end")
    return _parquet(ranked, fingerprint, sorting_columns=sorting)


def error_file(rows: pa.Table, fingerprint: str) -> bytes:
    """Failures as Parquet, in the order of the shard."""
    return _parquet(rows, fingerprint)


def _parquet(rows: pa.Table, fingerprint: str, **options: object) -> bytes:
    own = {
        b"multimem_ray": fingerprint.encode(),
        b"multimem_ray.version": _version().encode(),
        b"multimem_ray.format": FORMAT.encode(),
    }
    known = rows.schema.metadata or {}
    buffer = io.BytesIO()
    pq.write_table(
        rows.replace_schema_metadata({**known, **own}),
        buffer,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        **options,
    )
    return buffer.getvalue()


@cache
def _version() -> str:
    return metadata.version("multimem-ray")
