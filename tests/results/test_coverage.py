"""The sums of a run, and what is said when they disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.results.coverage import EXAMPLES, MISSING, coverage
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from multimem_ray.store.names import partition_of, shard_id
from multimem_ray.store.schema import error_schema
from tests.results.fake_run import fake_run

GONE = "/data/set-00099.tar"


def covered(output: str, scored: int) -> dict[str, Any]:
    run = json.loads(Path(output, "run.json").read_text())
    return coverage(ScoreTable(output, Storage()), run, scored)


def test_sums_that_agree(tmp_path: Path) -> None:
    shown = covered(fake_run(tmp_path, shards=4, rows=20, held_out=10).output, 80)
    assert shown["shards"] == {"named": 4, "committed": 4, "pending": 0, "missing": [GONE]}
    assert (shown["scored"], shown["held_out"], shown["errors"], shown["damaged"]) == (
        80, 40, 12, 4,
    )  # fmt: skip
    assert shown["samples"] == 80 + 40 + 8
    assert (shown["agrees"], shown["disagreements"]) == (True, [])
    assert all(kind["count"] == 4 for kind in shown["errors_by"])
    assert all(len(kind["examples"]) == EXAMPLES for kind in shown["errors_by"])
    assert [kind["stage"] for kind in shown["errors_by"]] == ["decode", "read", "select"]


def test_lost_rows_are_told(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=2, rows=20)
    for file in sorted(Path(run.output, "errors").rglob("*.parquet"))[:1]:
        file.unlink()
    shown = covered(run.output, 39)
    assert not shown["agrees"]
    assert shown["disagreements"] == [
        "40 rows were committed, 39 are in scores/",
        "6 errors were committed, 3 are in errors/",
    ]


def test_a_missing_shard_is_neither_sample_nor_damage(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=2, rows=20, held_out=0)
    place = Path(run.output, "errors", partition_of(GONE, 16))
    place.mkdir(exist_ok=True)
    row = {"shard": GONE, "key": None, "index": None, "stage": "read"}
    table = pa.Table.from_pylist([{**row, "error": MISSING, "detail": ""}], error_schema())
    pq.write_table(table, place / f"{shard_id(GONE)}.parquet")
    shown = covered(run.output, 40)
    assert (shown["errors"], shown["damaged"], shown["samples"]) == (6, 2, 44)
    assert shown["errors_by"][-1]["error"] == MISSING
    assert shown["agrees"]
