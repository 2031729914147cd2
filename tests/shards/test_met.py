"""A list that has little or nothing to do with the shards is told before anything is done."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.design.key_list import read_keys
from multimem_ray.errors import ConfigError
from multimem_ray.shards import met as module
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.met import require_met
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import FileInfo, Storage

STORAGE = Storage()


@pytest.fixture
def shards(tmp_path: Path) -> list[FileInfo]:
    return written(tmp_path / "in", shards=2, samples=3)


def written(folder: Path, shards: int, samples: int) -> list[FileInfo]:
    for number in range(shards):
        with create_shard(str(folder / f"{number}.tar"), STORAGE) as shard:
            for place in range(samples):
                shard.write(f"k{number}{place}", {"jpg": b"j" * 512, "txt": b"t"})
    return find_shards(str(folder), STORAGE).shards


def met(folder: Path, shards: list[FileInfo], text: str) -> str | None:
    (folder / "keys.txt").write_text(text)
    return require_met(read_keys(str(folder / "keys.txt"), STORAGE), shards, STORAGE, "keys.txt")


def test_one_common_sample_is_enough(tmp_path: Path, shards: list[FileInfo]) -> None:
    assert met(tmp_path, shards, "nobody\nk12\n") is None
    assert met(tmp_path, shards, "") == "keys.txt: the list is empty"


def test_none_is_refused_with_examples_of_both_sides(
    tmp_path: Path, shards: list[FileInfo]
) -> None:
    with pytest.raises(ConfigError, match=r"none of its 2 samples.*'1', '2'.*'k00', 'k01'"):
        met(tmp_path, shards, "1\n2\n")


def test_file_names_in_the_place_of_keys_are_recognized(
    tmp_path: Path, shards: list[FileInfo]
) -> None:
    with pytest.raises(ConfigError, match="these are file names; a key is the name up to"):
        met(tmp_path, shards, "k11.jpg\nk12.jpg\n")


def test_few_are_told_with_examples_of_both_sides(tmp_path: Path) -> None:
    shards = written(tmp_path / "in", shards=2, samples=50)
    said = met(tmp_path, shards, "\n".join(["k00", "k01", *(f"x{n}" for n in range(98))]))
    assert said is not None
    assert "few of its 100 samples" in said
    assert "2 of the 100 that were looked at" in said
    assert "It has 'x0', 'x1', 'x2', the shards have 'k02', 'k03', 'k04'" in said


def test_lists_of_few_samples_or_of_many_others_are_not_few(tmp_path: Path) -> None:
    shards = written(tmp_path / "in", shards=2, samples=50)
    every = [f"k{number}{place}" for number in range(2) for place in range(50)]
    assert met(tmp_path, shards, "k00\n") is None
    assert met(tmp_path, shards, "\n".join([*every, *(f"x{n}" for n in range(5000))])) is None


def test_a_look_at_a_part_tells_no_more_than_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = written(tmp_path / "in", shards=4, samples=400)
    monkeypatch.setattr(module, "_LOOKED_SHARDS", 2)
    monkeypatch.setattr(module, "_LOOKED_SAMPLES", 100)
    others = [f"x{n}" for n in range(2000)]
    # The listed sample is in none of those that are looked at: found by a pass over the shards.
    said = met(tmp_path, shards, "\n".join(["k1399", "k3399", *others]))
    assert said is not None
    assert "0 of the 100 that were looked at" in said
    # Of a hundred, a short list may well be met elsewhere.
    assert met(tmp_path, shards, "\n".join(["k3399", *others[:9]])) is None


def test_a_list_by_shard_counts_samples_of_its_shards_alone(tmp_path: Path) -> None:
    shards = written(tmp_path / "in", shards=2, samples=50)
    keys = [f"k1{place}" for place in range(50)]
    for of, few in (("0.tar", True), ("1.tar", False)):
        table = pa.table({"key": [*keys, "k00"], "shard": [*[of] * 50, "0.tar"]})
        pq.write_table(table, tmp_path / "list.parquet")
        listed = read_keys(str(tmp_path / "list.parquet"), STORAGE)
        assert (require_met(listed, shards, STORAGE, "list") is not None) is few
    pq.write_table(
        pa.table({"key": ["k00", "k01.jpg"], "shard": ["0", "1"]}), tmp_path / "l.parquet"
    )
    listed = read_keys(str(tmp_path / "l.parquet"), STORAGE)
    with pytest.raises(
        ConfigError, match=r"It has '0: k00', '1: k01\.jpg', the shards have '0\.tar"
    ):
        require_met(listed, shards, STORAGE, "list")
