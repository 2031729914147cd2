"""Lists of files as scoring writes them, with ties and undefined rows, are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from multimem_ray.results.select import find_threshold, ranking, top_n, write_selection
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from multimem_ray.store import files
from multimem_ray.store.files import score_file
from tests.results.fake_run import FakeRun, fake_run


@pytest.fixture
def ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A run whose files are written as scoring writes them, with ties and undefined rows."""
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 32)
    run = fake_run(tmp_path, shards=4, rows=640, undefined=5)
    for path in Path(run.output, "scores").rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        place = table.schema.get_field_index("multimem")
        coarse = pc.round(table["multimem"], 2)
        rows = table.set_column(place, "multimem", coarse)
        path.write_bytes(score_file(rows, "feedfacefeedface"))
    return run


def whole(run: FakeRun) -> list[dict[str, Any]]:
    paths = Path(run.output, "scores").rglob("*.parquet")
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def ranked(run: FakeRun, column: str, sign: int) -> list[dict[str, Any]]:
    rows = [row for row in whole(run) if row[column] is not None]
    return sorted(rows, key=lambda r: (sign * r[column], r["shard"], r["key"]))


@pytest.mark.parametrize("n", [1, 24, 200, 5000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_top_is_exact(ordered: FakeRun, n: int, sign: int) -> None:
    table = ScoreTable(ordered.output, Storage(), batch_rows=50)
    found = top(table, "multimem", n, largest=sign < 0)
    expected = ranked(ordered, "multimem", sign)[:n]
    assert [(r["shard"], r["key"]) for r in found] == [(r["shard"], r["key"]) for r in expected]


@pytest.mark.parametrize("n", [1, 100, 1500])
@pytest.mark.parametrize(("column", "sign"), [("multimem", -1), ("cmc_in", 1)])
def test_lists_are_exact(ordered: FakeRun, n: int, column: str, sign: int) -> None:
    table = ScoreTable(ordered.output, Storage())
    rows = ranked(ordered, column, sign)
    edge = find_threshold(ranking(table, column), n)
    assert (edge["shard"], edge["key"]) == (rows[n - 1]["shard"], rows[n - 1]["key"])
    made = write_selection("worst", top_n(ranking(table, column), n=n))
    found = pa.concat_tables(pq.read_table(url) for url in made.parts["remove"])
    assert sorted(zip(found["shard"].to_pylist(), found["key"].to_pylist(), strict=True)) == sorted(
        (row["shard"], row["key"]) for row in rows[:n]
    )
