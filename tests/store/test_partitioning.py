"""Scores partitioned by a field: exactly once, whoever is killed, and readable by others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.results.table import ScoreTable
from multimem_ray.scoring.retry import parts_of_commit
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.commits import CommitLog, Receipt
from multimem_ray.store.markers import details, load_commits
from multimem_ray.store.partitioning import (
    NULL,
    OTHER,
    Partitioning,
    escaped,
    hive_key,
    value_of,
)
from multimem_ray.store.schema import VALUE

RUN = "f" * 16
SHARD = FileInfo("/data/a.b.tar", 100, "v1")
VALUES = ["a", "b/c d", None, "é=%", "a", "", "b/c d"]
NO_ERRORS = pa.table({"key": pa.array([], pa.string())})


class KilledError(BaseException):
    """Stands for a dead process."""


def log(folder: Path, **changes: Any) -> CommitLog:
    return CommitLog(
        Storage(), str(folder), RUN, replace(Partitioning(4, "json.source"), **changes)
    )


def rows(values: list[str | None] = VALUES, first: int = 0) -> pa.Table:
    count = len(values)
    return pa.table(
        {
            "key": [f"k{first + i}" for i in range(count)],
            "shard": [SHARD.url] * count,
            "index": range(first, first + count),
            "multimem": [i / 10 for i in range(count)],
            VALUE: pa.array(values, pa.string()),
        }
    )


def commit(
    where: CommitLog, scores: pa.Table, shard: FileInfo = SHARD, stale: list[str] | None = None
) -> None:
    receipt = Receipt(shard.url, scores.num_rows, 0, 0, 0.5)
    where.commit(shard, receipt, scores, NO_ERRORS, stale or [])


def read(folder: Path) -> list[str]:
    """Keys as this tool reads them."""
    (folder / "run.json").write_text(json.dumps({"fingerprint": RUN}))
    table = ScoreTable(str(folder), Storage())
    return sorted(key for batch in table.batches(["key"]) for key in batch["key"].to_pylist())


def keys(*numbers: int) -> list[str]:
    return [f"k{number}" for number in numbers]


def test_duckdb_polars_and_arrow_give_the_values_back(tmp_path: Path) -> None:
    commit(log(tmp_path), rows())
    expected = {f"k{i}": value or None for i, value in enumerate(VALUES)}
    glob = f"{tmp_path}/scores/*/*.parquet"
    query = f"SELECT key, source FROM read_parquet('{glob}', hive_partitioning = true)"
    assert dict(duckdb.sql(query).fetchall()) == expected
    lazy = polars.scan_parquet(f"{tmp_path}/scores", hive_partitioning=True)
    assert dict(lazy.select("key", "source").collect().iter_rows()) == expected
    assert lazy.filter(polars.col("source") == "b/c d").collect().height == 2
    dataset = pyarrow.dataset.dataset(f"{tmp_path}/scores", partitioning="hive").to_table()
    pairs = zip(dataset["key"].to_pylist(), dataset["source"].to_pylist(), strict=True)
    assert dict(pairs) == expected


def test_a_file_holds_one_value_and_no_column_of_it(tmp_path: Path) -> None:
    commit(log(tmp_path), rows())
    (path,) = (tmp_path / "scores" / "source=a").iterdir()
    table = pq.read_table(path, partitioning=None)
    assert table["key"].to_pylist() == ["k4", "k0"], "best first"
    assert VALUE not in table.column_names
    names = {folder.name for folder in (tmp_path / "scores").iterdir()}
    assert names == {"source=a", "source=b%2Fc%20d", f"source={NULL}", "source=%C3%A9%3D%25"}


def test_the_marker_lists_the_files_with_their_digests(tmp_path: Path) -> None:
    import hashlib

    commit(log(tmp_path), rows())
    (found,) = load_commits(Storage(), str(tmp_path))
    listed = details(Storage(), found)["files"]
    assert len(listed) == found.files == 4
    for name, sha256 in listed.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sha256
    assert read(tmp_path) == keys(*range(7))


def test_killed_between_files_and_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = log(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(CommitLog, "_mark", killed)
        with pytest.raises(KilledError):
            commit(where, rows(["a", "only-then", "b"]))
    assert read(tmp_path) == []
    # The next attempt fails on the sample that alone had its value.
    second = rows(["a", "x", "b"]).take([0, 2])
    commit(where, second)
    assert read(tmp_path) == keys(0, 2)
    assert (tmp_path / "scores" / "source=only-then").exists()
    done, todo = where.split([SHARD])
    assert not todo
    where.clear_orphans(done)
    assert read(tmp_path) == keys(0, 2)
    assert len(list((tmp_path / "scores").rglob("*.parquet"))) == 2


def killed(*_: object) -> None:
    raise KilledError


@pytest.mark.parametrize("dies_at", range(6))
def test_whenever_it_dies_the_next_attempt_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    where, calls, write = log(tmp_path), iter(range(99)), Storage.write_atomic

    def deadly(self: Storage, url: str, data: bytes) -> None:
        if next(calls) == dies_at:
            raise KilledError
        write(self, url, data)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_atomic", deadly)
        patch.setattr("multimem_ray.store.commits._WRITERS", 1)
        with pytest.raises(KilledError) if dies_at < 5 else _nothing():
            commit(where, rows())
    assert read(tmp_path) == (keys(*range(7)) if dies_at == 5 else [])
    commit(where, rows())
    assert read(tmp_path) == keys(*range(7))
    assert len(list((tmp_path / "scores").rglob("*.parquet"))) == 4


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_of_a_changed_shard_the_old_files_go(tmp_path: Path) -> None:
    where, changed = log(tmp_path), replace(SHARD, version="v2")
    commit(where, rows())
    ((shard, stale),) = where.split([changed])[1]
    commit(where, rows(["new", "a"], first=50), shard, stale)
    assert read(tmp_path) == keys(50, 51)
    left = {path.parent.name for path in (tmp_path / "scores").rglob("*.parquet")}
    assert left == {"source=new", "source=a"}
    assert len(list((tmp_path / "scores" / "source=a").iterdir())) == 1


def test_a_retry_knows_the_values(tmp_path: Path) -> None:
    where = log(tmp_path)
    commit(where, rows())
    (marker,) = load_commits(Storage(), str(tmp_path))
    (part,) = parts_of_commit(where, SHARD, marker.url)
    assert part.rows["key"].to_pylist() == keys(*range(7))
    assert part.rows[VALUE].to_pylist() == [value or None for value in VALUES]
    commit(where, part.rows, stale=[marker.url])
    assert read(tmp_path) == keys(*range(7))
    assert len(list((tmp_path / "scores").rglob("*.parquet"))) == 4


def test_one_partition_is_read_by_its_value(tmp_path: Path) -> None:
    commit(log(tmp_path), rows())
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": RUN}))
    for partition, expected in (("source=b/c d", keys(1, 6)), ("source=", keys(2, 5))):
        table = ScoreTable(str(tmp_path), Storage(), partition=partition)
        assert sorted(k for b in table.batches(["key"]) for k in b["key"].to_pylist()) == expected
    with pytest.raises(ConfigError, match=r"no partition 'source=x'.*source="):
        _ = ScoreTable(str(tmp_path), Storage(), partition="source=x").score_files


def test_a_lost_file_is_told(tmp_path: Path) -> None:
    commit(log(tmp_path), rows())
    next((tmp_path / "scores" / "source=a").iterdir()).unlink()
    with pytest.raises(StorageError, match=r"a\.b-.*4 files.*3 are there.*marker"):
        read(tmp_path)


def test_too_many_values_are_an_error_that_a_higher_limit_resolves(tmp_path: Path) -> None:
    first, second = log(tmp_path, most=3), log(tmp_path, most=3)
    commit(first, rows(["a", "b", "c"]))
    with pytest.raises(ConfigError, match=r"json\.source.*more than 3.*max_partition_values"):
        commit(second, rows(["a", "d"]), replace(SHARD, url="/data/2.tar"))
    assert read(tmp_path) == keys(0, 1, 2)
    commit(log(tmp_path, most=4), rows(["a", "d"]), replace(SHARD, url="/data/2.tar"))
    commit(second, rows(["c", "b"]), replace(SHARD, url="/data/3.tar"))


def test_without_rows_there_is_a_marker_only(tmp_path: Path) -> None:
    commit(log(tmp_path), rows([]))
    assert read(tmp_path) == []
    assert [c.files for c in load_commits(Storage(), str(tmp_path))] == [0]


@given(st.text())
def test_values_survive_their_folder(value: str) -> None:
    folder = f"source={escaped(value)}"
    assert "/" not in folder
    assert len(folder.encode()) < 255
    found = value_of(f"/out/scores/{folder}/x.parquet")
    text = value.encode("utf-8", "replace").decode()
    assert found == (text or None) or escaped(value) in (OTHER, NULL)


def test_names_of_columns_are_not_taken() -> None:
    assert hive_key("json.source") == "source"
    assert hive_key("json.a.made by") == "made_by"
    for taken in ("label", "group", "json.key", "json.pair_audio_text", "json.multimem_se"):
        assert hive_key(taken) == f"partition_{taken.removeprefix('json.')}"
