"""Files that belong to commits, among those that something else left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.storage import Storage
from multimem_ray.store.committed import error_files, in_partition, score_files
from multimem_ray.store.markers import Commit, load_commits
from multimem_ray.store.names import marker_name, shard_id

STORAGE = Storage()


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def commit(folder: Path, shard: str, *files: str, digest: str = "", count: int = 1) -> Commit:
    """Mark a shard with two rows and an error; the marker lists the files."""
    sums = (2, 0, 1, digest, count) if digest else (2, 0, 1)
    marker = folder / "commits" / marker_name(shard, "run", "source", *sums)
    put(folder, f"commits/{marker.name}")
    marker.write_text(json.dumps({"files": dict.fromkeys(files, "0")}))
    return next(c for c in load_commits(STORAGE, str(folder)) if c.shard_id == shard)


def names(folder: Path, files: list[str]) -> list[str]:
    return [str(Path(file).relative_to(folder)) for file in files]


def test_files_without_a_marker_are_left_out(tmp_path: Path) -> None:
    mine = "scores/partition=000/b-1.parquet"
    put(tmp_path, mine, "scores/partition=001/a-2.parquet", "scores/partition=000/b-1.parquet.tmp")
    listed = score_files(STORAGE, str(tmp_path), [commit(tmp_path, "b-1", mine)])
    assert list(listed) == ["b-1"]
    assert names(tmp_path, [file.url for file in listed["b-1"]]) == [mine]


def test_of_two_attempts_the_marker_names_the_files(tmp_path: Path) -> None:
    """Another number of partitions left a file of the same name elsewhere."""
    old, new = "scores/partition=007/a-1.parquet", "scores/partition=001/a-1.parquet"
    put(tmp_path, old, new)
    listed = score_files(STORAGE, str(tmp_path), [commit(tmp_path, "a-1", new)])
    assert names(tmp_path, [file.url for file in listed["a-1"]]) == [new]


def test_lost_files_are_told_with_the_way_out(tmp_path: Path) -> None:
    put(tmp_path, "scores/source=x/a-1.run.source.d1.parquet")
    marked = commit(tmp_path, "a-1", digest="d1", count=2)
    with pytest.raises(StorageError, match=r"2 files .* and 1 are there.* remove this marker"):
        score_files(STORAGE, str(tmp_path), [marked])


def test_error_files_are_those_of_commits_then_of_missing_shards(tmp_path: Path) -> None:
    gone = "/data/gone.tar"
    mine, missing = (f"errors/partition=000/{n}.parquet" for n in ("a-1", shard_id(gone)))
    put(tmp_path, mine, missing, "errors/partition=000/stray-3.parquet")
    files = error_files(STORAGE, str(tmp_path), [commit(tmp_path, "a-1", mine)], [gone, "/no.tar"])
    assert list(files) == ["a-1", shard_id(gone), shard_id("/no.tar")]
    there = [file.url for own in files.values() for file in own]
    assert names(tmp_path, there) == [mine, missing]


def test_one_partition_is_named_as_in_the_data(tmp_path: Path) -> None:
    stem = "a-1.run.source.d1.parquet"
    put(tmp_path, f"scores/source=tape%207/{stem}", f"scores/source=tape%208/{stem}")
    files = score_files(STORAGE, str(tmp_path), [commit(tmp_path, "a-1", digest="d1", count=2)])
    (chosen,) = in_partition(files, "source=tape 7")["a-1"]
    assert names(tmp_path, [chosen.url]) == [f"scores/source=tape%207/{stem}"]
    with pytest.raises(ConfigError, match=r"no partition 'source=tape 9'.*did you mean"):
        in_partition(files, "source=tape 9")
