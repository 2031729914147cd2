"""The value of a field beside each scored row."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from multimem_ray.results.domain_rows import VALUE, DomainRows
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from multimem_ray.store.names import shard_id
from multimem_ray.store.partitioning import NULL
from tests.results.fake_run import fake_run


def values(rows: DomainRows) -> dict[str, str | None]:
    batches = list(rows.batches(["key"]))
    return {row["key"]: row[VALUE] for batch in batches for row in batch.to_pylist()}


def test_columns_shards_and_partitions(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    for by, expected in (
        ("label", lambda row: row["label"]),
        ("shard", lambda row: row["shard"]),
        ("modalities", lambda row: "audio+image+text"),
    ):
        told = values(DomainRows(table, by))
        assert told == {row["key"]: expected(row) for row in run.rows}
    parts = values(DomainRows(table, "partition"))
    of = {Path(f.url).stem: f.url.split("partition=")[1][:3] for f in table.score_files}
    assert set(parts.values()) == set(of.values())
    assert len(parts) == len(run.rows)


def test_partitions_by_a_field_give_its_values(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    named = dict(zip(["source=tape%207", f"source={NULL}"], ["tape 7", None], strict=True))
    for folder, name in zip(sorted(Path(run.output, "scores").iterdir()), named, strict=True):
        folder.rename(folder.with_name(name))
    told = values(DomainRows(table, "partition"))
    for name, value in named.items():
        stems = {path.stem for path in Path(run.output, "scores", name).iterdir()}
        own = [row["key"] for row in run.rows if shard_id(row["shard"]) in stems]
        assert own
        assert {told[key] for key in own} == {value}


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.org/a.jpg", "example.org"),
        ("http://user:word@a.example:8080?x", "a.example"),
        ("s3://bucket/a/b.jpg", "bucket"),
        ("https://[2001:db8::1]:80/a", "[2001:db8::1]"),
        ("https://evil.example#@good.example/", "evil.example"),
        ("a.jpg", None),
        ("", None),
        (None, None),
    ],
)
def test_hosts(url: str | None, host: str | None) -> None:
    rows = DomainRows(ScoreTable("nowhere", Storage()), "host")
    assert rows.name == "host of json.url"
    table = pa.table({VALUE: pa.array([url], pa.string())})
    with duckdb.connect() as engine:
        engine.register("urls", table)
        assert engine.sql(f"SELECT {rows.sql} FROM urls").fetchall() == [(host,)]
