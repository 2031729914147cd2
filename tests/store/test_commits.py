"""The commit log: written last, told by names, stale where config or shard changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.commits import CommitLog, Receipt
from multimem_ray.store.markers import details, load_commits
from multimem_ray.store.partitioning import Partitioning

SHARD = FileInfo("/data/a.b.tar", 100, "v1")
SCORES = pa.table({"key": ["k"], "index": [0], "multimem": [1.0]})
ERRORS = pa.table({"key": ["bad"], "error": ["undecodable"]})


def log(folder: Path, fingerprint: str = "f" * 16) -> CommitLog:
    return CommitLog(Storage(), str(folder), fingerprint, Partitioning(4))


def commit(where: CommitLog, shard: FileInfo = SHARD, **kwargs: Any) -> None:
    where.commit(shard, Receipt(shard.url, 1, 2, 1, 0.5), SCORES, ERRORS, **kwargs)


def test_a_committed_shard_is_done(tmp_path: Path) -> None:
    commit(log(tmp_path))
    done, todo = log(tmp_path).split([SHARD])
    assert not todo
    assert (done[0].rows, done[0].held_out, done[0].errors, done[0].samples) == (1, 2, 1, 4)
    content = details(Storage(), done[0])
    assert content["shard"] == SHARD.url
    table = pq.read_table(log(tmp_path).data_url("scores", SHARD.url), partitioning=None)
    assert table.to_pydict() == SCORES.to_pydict()


@pytest.mark.parametrize(
    "changed", [replace(SHARD, size=101), replace(SHARD, version="v2")], ids=["size", "version"]
)
def test_a_changed_shard_is_scored_again_and_its_old_marker_goes(
    tmp_path: Path, changed: FileInfo
) -> None:
    commit(log(tmp_path))
    done, todo = log(tmp_path).split([changed])
    assert not done
    ((shard, stale),) = todo
    assert len(stale) == 1
    commit(log(tmp_path), shard, stale=stale)
    assert len(load_commits(Storage(), str(tmp_path))) == 1
    assert len(log(tmp_path).split([changed])[0]) == 1


def test_another_configuration_is_not_done(tmp_path: Path) -> None:
    commit(log(tmp_path))
    done, todo = log(tmp_path, "0" * 16).split([SHARD])
    assert not done
    assert len(todo) == 1


def test_committing_twice_leaves_one_of_everything(tmp_path: Path) -> None:
    commit(log(tmp_path))
    commit(log(tmp_path))
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 3


def test_the_marker_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write = Storage.write_atomic

    def spy(self: Storage, url: str, data: bytes) -> None:
        order.append(Path(url).relative_to(tmp_path).parts[0])
        write(self, url, data)

    monkeypatch.setattr(Storage, "write_atomic", spy)
    commit(log(tmp_path))
    assert order == ["scores", "errors", "commits"]


def test_without_rows_there_is_no_file_and_an_old_one_goes(tmp_path: Path) -> None:
    commit(log(tmp_path))
    empty = SCORES.slice(0, 0)
    log(tmp_path).commit(SHARD, Receipt(SHARD.url, 0, 0, 0, 0.1), empty, ERRORS.slice(0, 0))
    assert not list(tmp_path.rglob("*.parquet"))
    assert [c.rows for c in log(tmp_path).split([SHARD])[0]] in ([0], [1])


def test_shards_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    other = replace(SHARD, url="/elsewhere/a.b.tar")
    commit(log(tmp_path))
    commit(log(tmp_path), other)
    done, todo = log(tmp_path).split([SHARD, other])
    assert (len(done), len(todo)) == (2, 0)
