"""Samples of two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.results.diff_rows import JoinedRuns
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run


def table(run: FakeRun) -> ScoreTable:
    return ScoreTable(run.output, Storage())


def rows(joined: JoinedRuns) -> list[dict[str, Any]]:
    return [row for batch in joined.batches() for row in batch.to_pylist()]


def rewrite(run: FakeRun, change: Callable[[pd.DataFrame], None]) -> None:
    for path in Path(run.output, "scores").rglob("*.parquet"):
        whole = pq.read_table(path, partitioning=None)
        frame = whole.to_pandas()
        change(frame)
        pq.write_table(pa.Table.from_pandas(frame, whole.schema, preserve_index=False), path)


def test_moved_shards_are_the_same_and_what_is_not_met_is_counted(tmp_path: Path) -> None:
    keys = [["k0", "k1", "k2"], ["k0", "k1"]]
    first = fake_run(tmp_path / "a", shard_names=["/x/s0.tar", "/x/s1.tar"], keys=keys)
    second = fake_run(
        tmp_path / "b",
        shard_names=["s3://b/s1.tar", "s3://b/s2.tar"],
        keys=[["k1", "k0", "k7"], ["k0"]],
        seed=1,
    )
    joined = JoinedRuns(table(first), table(second))
    told = {row["key"]: row for row in rows(joined)}
    assert sorted(told) == ["k0", "k1"]
    assert joined.rows == 2
    of = {(r["shard"], r["key"]): r for r in (*first.rows, *second.rows)}
    for key, row in told.items():
        assert (row["a_shard"], row["shard"]) == ("/x/s1.tar", "s3://b/s1.tar")
        assert row["a"] == of["/x/s1.tar", key]["multimem"]
        assert row["b"] == of["s3://b/s1.tar", key]["multimem"]
        assert row["a_index"] != row["index"]
    assert joined.a_alone.as_json() == {
        "count": 3,
        "examples": ["s0.tar: k0", "s0.tar: k1", "s0.tar: k2"],
    }
    assert joined.b_alone.as_json() == {"count": 2, "examples": ["s1.tar: k7", "s2.tar: k0"]}


def test_shards_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    names = ["/x/cc3m/0.tar", "/x/cc12m/0.tar"]
    first = fake_run(tmp_path / "a", shard_names=names, keys=[["k"], ["k"]])
    moved = [name.replace("/x/", "/y/") for name in names]
    second = fake_run(tmp_path / "b", shard_names=moved, keys=[["k"], ["k"]], seed=1)
    for run in (first, second):
        place = Path(run.output, "run.json")
        place.write_text(json.dumps({**json.loads(place.read_text()), "shard_parts": 2}))
    joined = JoinedRuns(table(first), table(second))
    pairs = {(row["a_shard"], row["shard"]) for row in rows(joined)}
    assert pairs == set(zip(names, moved, strict=True))


def test_without_shards_the_key_alone_counts(tmp_path: Path) -> None:
    first = fake_run(tmp_path / "a", shards=1, rows=5)
    second = fake_run(tmp_path / "b", shards=1, rows=5, seed=1)
    rewrite(second, lambda frame: frame.__setitem__("shard", None))
    joined = JoinedRuns(table(first), table(second))
    assert len(rows(joined)) == 5
    assert joined.a_alone.count == joined.b_alone.count == 0


def test_another_content_under_one_name_is_another_sample(tmp_path: Path) -> None:
    first = fake_run(tmp_path / "a", shards=1, rows=5)
    second = fake_run(tmp_path / "b", shards=1, rows=5, seed=1)
    for run in (first, second):
        place = Path(run.output, "run.json")
        content = json.loads(place.read_text())
        content["config"]["design"]["group"] = "content"
        place.write_text(json.dumps(content))
        rewrite(run, lambda frame: frame.__setitem__("group", [f"g{n}" for n in range(5)]))
    rewrite(second, lambda frame: frame.__setitem__("group", ["x", "g1", "g2", "g3", "g4"]))
    joined = JoinedRuns(table(first), table(second))
    assert len(rows(joined)) == 4
    assert joined.changed.as_json() == {"count": 1, "examples": ["set-00000.tar: 00_00000"]}


def test_nothing_in_common_is_an_error_with_names_of_both(tmp_path: Path) -> None:
    first = fake_run(tmp_path / "a", shard_names=["/x/a.tar"], keys=[["k"]])
    second = fake_run(tmp_path / "b", shard_names=["/x/b.tar"], keys=[["k"]])
    with pytest.raises(ConfigError, match=r"no sample in common.*a\.tar: k.*b\.tar: k"):
        rows(JoinedRuns(table(first), table(second)))
    with pytest.raises(ConfigError, match="nothing is scored yet"):
        rows(JoinedRuns(table(first), ScoreTable(str(tmp_path), Storage())))
