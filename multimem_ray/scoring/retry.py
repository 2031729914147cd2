"""What failed in a committed shard, tried again: the rest of the shard is taken as it is."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.scoring.commits import CommitLog, parse_marker
from multimem_ray.scoring.parts import Part
from multimem_ray.storage import FileInfo


def parts_of_commit(log: CommitLog, shard: FileInfo, marker: str) -> list[Part]:
    """The parts of a committed shard between its failures.

    The index of a sample is its position in the shard. A failure of the shard itself (it was cut,
    say) has no index and comes last: whatever is there from then on is read anew.

    Args:
        marker: URL of the commit's marker.
    """
    commit = parse_marker(marker)
    if commit is None:
        return []
    scores = _table(log, "scores", shard, commit.rows)
    errors = _table(log, "errors", shard, commit.errors)
    # A score file is ordered by score.
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


def _table(log: CommitLog, kind: str, shard: FileInfo, rows: int) -> pa.Table | None:
    if not rows:
        return None
    data = log.storage.read_bytes(log.data_url(kind, shard.url))
    return pq.read_table(io.BytesIO(data)).replace_schema_metadata(None)
