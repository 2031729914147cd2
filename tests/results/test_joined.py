"""Fields of the JSON beside scored rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import StorageError
from multimem_ray.results.joined import CatalogueJoin
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.small import QUIET

COLUMNS = ["key", "shard", "index"]


@pytest.fixture
def table(finished: str, tmp_path: Path) -> ScoreTable:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    return ScoreTable(str(copy), Storage())


def rows(table: ScoreTable, join: CatalogueJoin) -> list[dict[str, str | None]]:
    return [row for b in join.beside(table.batches(COLUMNS)) for row in b.to_pylist()]


def test_every_row_has_its_own_fields(table: ScoreTable) -> None:
    join = CatalogueJoin(table, ["json.source", "json.url"])
    join.prepare(QUIET)
    told = rows(table, join)
    assert len(told) > 20
    for row in told:
        number = int(str(row["key"])[1:])
        assert row["json.source"] == f"tape-{number // 10}"
        assert row["json.url"] == f"https://host{number % 3}.example/{number}.png"
    assert join.missed == 0


def test_some_rows_in_another_order(table: ScoreTable) -> None:
    join = CatalogueJoin(table, ["json.url"])
    join.prepare(QUIET)
    whole = pa.Table.from_pylist(rows(table, join)).sort_by([("shard", "descending")])
    shards = whole["shard"].unique().to_pylist()
    parts = [whole.filter(pa.compute.equal(whole["shard"], name)).slice(0, 2) for name in shards]
    batches = [part.drop_columns(["json.url"]).to_batches()[0] for part in parts]
    joined = list(join.beside(batches, shards))
    assert [b["json.url"].to_pylist() for b in joined] == [p["json.url"].to_pylist() for p in parts]


def test_rows_that_the_catalogue_lacks_are_counted(table: ScoreTable) -> None:
    join = CatalogueJoin(table, ["json.source"])
    join.prepare(QUIET)
    for path in Path(table.output, "catalogue").iterdir():
        pq.write_table(pq.read_table(path).slice(0, 15), path)
    told = rows(table, join)
    assert join.missed == sum(row["json.source"] is None for row in told) > 0


def test_scores_of_a_shard_that_the_run_does_not_know_are_an_error(table: ScoreTable) -> None:
    shards = pq.read_table(Path(table.output, "shards.parquet"))
    pq.write_table(shards.slice(0, 1), Path(table.output, "shards.parquet"))
    join = CatalogueJoin(table, ["json.source"])
    join.prepare(QUIET)
    with pytest.raises(StorageError, match=r"which its shards.parquet lacks"):
        rows(table, join)
