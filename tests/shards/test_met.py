"""A list that has nothing to do with the shards is told before anything is done with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.design.key_list import read_keys
from multimem_ray.errors import ConfigError
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.met import require_met
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import FileInfo, Storage

STORAGE = Storage()


@pytest.fixture
def shards(tmp_path: Path) -> list[FileInfo]:
    for number in range(2):
        with create_shard(str(tmp_path / "in" / f"{number}.tar"), STORAGE) as shard:
            for place in range(3):
                shard.write(f"k{number}{place}", {"jpg": b"j", "txt": b"t"})
    return find_shards(str(tmp_path / "in"), STORAGE).shards


def met(folder: Path, shards: list[FileInfo], text: str) -> None:
    (folder / "keys.txt").write_text(text)
    require_met(read_keys(str(folder / "keys.txt"), STORAGE), shards, STORAGE, "keys.txt")


def test_one_common_sample_is_enough(tmp_path: Path, shards: list[FileInfo]) -> None:
    met(tmp_path, shards, "nobody\nk12\n")
    met(tmp_path, shards, "")


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
