from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from multimem_ray.design.key_list import read_keys
from multimem_ray.errors import ConfigError
from multimem_ray.sample import Sample
from multimem_ray.shards import reshard as module
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.reshard import ReshardReport, reshard
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import Storage

STORAGE = Storage()


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Three shards of four samples; the keys of the first two are the same."""
    for number, prefix in enumerate(("a", "a", "b")):
        with create_shard(str(tmp_path / "in" / f"{number}.tar"), STORAGE) as shard:
            for place in range(4):
                shard.write(f"{prefix}{place}", {"txt": f"{number}-{place}".encode(), "jpg": b"j"})
    return str(tmp_path / "in" / "*.tar")


def listed(folder: Path, rows: list[tuple[str, str]]) -> str:
    """A list as a selection has it; shards under another folder than where they are."""
    folder.mkdir(exist_ok=True)
    table = pa.table({"key": [k for _, k in rows], "shard": [f"/was/{s}.tar" for s, _ in rows]})
    pq.write_table(table, folder / "00000.parquet")
    return str(folder)


def texts(report: ReshardReport) -> list[bytes]:
    return [sample["txt"] for sample in webdataset.WebDataset(report.shards, shardshuffle=False)]


def test_a_removal_list_leaves_the_others_as_they_are(tmp_path: Path, shards: str) -> None:
    keys = read_keys(listed(tmp_path / "remove", [("0", "a1"), ("2", "b0"), ("9", "x")]), STORAGE)
    made = reshard(shards, str(tmp_path / "out"), keys)
    assert (made.samples, made.written, made.left_out, made.found) == (12, 10, 2, 2)
    assert made.agrees
    assert any("2 samples of the list's 3" in line for line in made.lines())
    gone = {b"0-1", b"2-0"}
    expected = [f"{s}-{p}".encode() for s in range(3) for p in range(4)]
    assert texts(made) == [text for text in expected if text not in gone]


def test_a_keep_list_keeps_nothing_else(tmp_path: Path, shards: str) -> None:
    keys = read_keys(listed(tmp_path / "keep", [("1", "a3"), ("1", "a0")]), STORAGE)
    made = reshard(shards, str(tmp_path / "out"), keys, keep=True)
    assert texts(made) == [b"1-0", b"1-3"]
    assert [Path(url).name for url in made.shards] == ["1.tar"]
    assert json.loads((tmp_path / "out" / "reshard.json").read_text())["list"]["found"] == 2


def test_keys_of_a_text_file_count_in_every_shard(tmp_path: Path, shards: str) -> None:
    (tmp_path / "keys.txt").write_text("a2\n\n")
    made = reshard(shards, str(tmp_path / "out"), read_keys(str(tmp_path / "keys.txt"), STORAGE))
    assert made.left_out == 2


def test_it_goes_on_where_it_was_killed(
    tmp_path: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = read_keys(listed(tmp_path / "remove", [("0", "a1")]), STORAGE)
    whole = reshard(shards, str(tmp_path / "whole"), keys)
    rewrite, done = module._rewrite, []

    def killed(shard: object, *rest: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(shard)
        return rewrite(shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_rewrite", killed)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        reshard(shards, str(out), keys)
    assert not (out / "reshard.json").exists()
    made = reshard(shards, str(out), keys) if done.clear() is None else None
    assert made is not None
    assert made.skipped == 2
    assert len(done) == 1
    assert texts(made) == texts(whole)
    assert (made.samples, made.written) == (whole.samples, whole.written)


def test_another_list_or_a_changed_shard_is_written_anew(tmp_path: Path, shards: str) -> None:
    out = str(tmp_path / "out")
    every = read_keys(listed(tmp_path / "all", [("0", f"a{i}") for i in range(4)]), STORAGE)
    one = read_keys(listed(tmp_path / "one", [("0", "a1")]), STORAGE)
    assert len(texts(reshard(shards, out, one))) == 11
    assert len(texts(reshard(shards, out, every))) == 8
    assert not (tmp_path / "out" / "0.tar").exists()
    (tmp_path / "out" / "1.tar").write_bytes(b"")
    made = reshard(shards, out, every)
    assert made.skipped == 2
    assert len(texts(made)) == 8


def test_what_cannot_be_read_is_named(tmp_path: Path, shards: str) -> None:
    path = tmp_path / "in" / "1.tar"
    path.write_bytes(path.read_bytes()[:2600])
    made = reshard(shards, str(tmp_path / "out"), read_keys(listed(tmp_path / "r", []), STORAGE))
    assert made.agrees
    assert made.samples == 8 + sum(
        isinstance(item, Sample) for item in read_shard(str(path), STORAGE)
    )
    assert any("truncated" in failure for failure in made.failures)


def test_a_copy_goes_elsewhere(tmp_path: Path, shards: str) -> None:
    with pytest.raises(ConfigError, match="write the copy elsewhere"):
        reshard(shards, str(tmp_path / "in"), read_keys(listed(tmp_path / "r", []), STORAGE))
