"""Score files: best rows first, row groups with statistics, and what wrote them."""

from __future__ import annotations

import io
from importlib import metadata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.store import files
from multimem_ray.store.files import error_file, score_file


def rows(count: int) -> pa.Table:
    values = np.random.default_rng(0).normal(size=count).round(2)
    return pa.table(
        {
            "key": [f"k{i}" for i in range(count)],
            "index": list(range(count)),
            "multimem": pa.array(values, mask=np.arange(count) % 10 == 0),
        }
    )


def test_rows_stand_best_first_and_undefined_ones_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 64)
    table = rows(500)
    file = pq.ParquetFile(io.BytesIO(score_file(table, "f" * 16)))
    found = file.read().to_pylist()
    expected = sorted(
        table.to_pylist(),
        key=lambda r: (r["multimem"] is None, -(r["multimem"] or 0), r["index"]),
    )
    assert found == expected
    assert file.metadata.num_row_groups == 8
    group = file.metadata.row_group(0)
    assert group.column(2).statistics.max == expected[0]["multimem"]
    assert group.column(2).statistics.min == expected[63]["multimem"]
    assert [(c.column_index, c.descending, c.nulls_first) for c in group.sorting_columns] == [
        (2, True, False),
        (1, False, False),
    ]
    assert group.column(0).compression == "ZSTD"


@pytest.mark.parametrize("write", [score_file, error_file])
def test_the_metadata_says_what_wrote_it(write: object) -> None:
    found = pq.read_schema(io.BytesIO(write(rows(3), "f" * 16))).metadata  # type: ignore[operator]
    assert found[b"multimem_ray"] == b"f" * 16
    assert found[b"multimem_ray.version"].decode() == metadata.version("multimem-ray")
    assert found[b"multimem_ray.format"] == b"1"
