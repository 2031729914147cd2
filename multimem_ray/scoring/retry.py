"""What failed in a committed shard, tried again: the rest of the shard is taken as it is."""

from __future__ import annotations

import io

import pyarrow as pa

from multimem_ray.arrow_files import READ_ERRORS, ParquetFile
from multimem_ray.errors import StorageError
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import CommitLog
from multimem_ray.store.footers import FooterCheck
from multimem_ray.store.markers import Commit, parse_marker, way_out
from multimem_ray.store.partitioning import value_of
from multimem_ray.store.parts import Part
from multimem_ray.store.schema import VALUE


def parts_of_commit(log: CommitLog, shard: FileInfo, marker: str) -> list[Part[pa.Table]]:
    """The parts of a committed shard between its failures.

    The index of a sample is its position in the shard. A failure of the shard itself (it was cut,
    say) has no index and comes last: whatever is there from then on is read anew.

    Args:
        marker: URL of the commit's marker.
    """
    commit = parse_marker(marker)
    if commit is None:
        return []
    scores = _table(log, "scores", shard, commit) if commit.rows else None
    errors = _table(log, "errors", shard, commit) if commit.errors else None
    # A score file is ordered by score, and there may be several.
    scores = scores.sort_by("index") if scores is not None else None
    indices = scores.column("index").to_pylist() if scores is not None else []
    failed = errors.column("index").to_pylist() if errors is not None else []
    whole = sum(index is None for index in failed)
    ends = [*sorted(index for index in failed if index is not None), commit.samples - whole]
    parts, first, row = [], 0, 0
    for end in ends:
        last = row
        while last < len(indices) and indices[last] < end:
            last += 1
        if end > first:
            rows = scores.slice(row, last - row) if scores is not None else pa.table({})
            parts.append(Part(first, end, rows, end - first - rows.num_rows, []))
        first, row = end + 1, last
    return parts


def _table(log: CommitLog, kind: str, shard: FileInfo, commit: Commit) -> pa.Table:
    urls = log.files(kind, shard.url, commit.url)
    rows = commit.rows if kind == "scores" else commit.errors
    check = FooterCheck([commit], {commit.shard_id: urls}, {commit.shard_id: rows})
    tables = []
    for url in urls:
        try:
            with ParquetFile(io.BytesIO(log.storage.read_bytes(url)), url) as file:
                check.require(url, file.metadata)
                tables.append(file.read())
        except READ_ERRORS as error:
            raise StorageError(f"{url}: damaged ({error}); {way_out(commit)}") from error
    if kind == "scores" and log.layout.by is not None:
        pairs = zip(urls, tables, strict=True)
        tables = [_with_value(table, value_of(url)) for url, table in pairs]
    return pa.concat_tables(table.replace_schema_metadata(None) for table in tables)


def _with_value(table: pa.Table, value: str | None) -> pa.Table:
    return table.append_column(VALUE, pa.array([value] * table.num_rows, pa.string()))
