"""The cache of decoded shards: exact, bounded, and checked before it is believed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.decode import DecodedSample, from_table, schema, to_table

NAMES = ("image", "text")


def samples(count: int, start: int = 0) -> list[DecodedSample]:
    found = []
    for number in range(start, start + count):
        arrays = {"image": np.full((2, 3, number % 4 + 1), number, dtype=np.uint8)}
        if number % 3:
            arrays["text"] = np.array([f"word {number}", "ö"])
        found.append(DecodedSample(f"k{number}", f"g{number // 2}", arrays))
    return found


def same(a: list[DecodedSample], b: list[DecodedSample]) -> None:
    assert [(s.key, s.group, sorted(s.arrays)) for s in a] == [
        (s.key, s.group, sorted(s.arrays)) for s in b
    ]
    for one, other in zip(a, b, strict=True):
        for name, array in one.arrays.items():
            assert array.dtype == other.arrays[name].dtype
            np.testing.assert_array_equal(array, other.arrays[name])


def test_samples_survive_the_table() -> None:
    given = samples(7)
    same(given, list(from_table(to_table(given, NAMES, 3), NAMES)))


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 1 << 20)
    assert cache.get("a") is None
    tables = [to_table(samples(4), NAMES, 0), to_table(samples(3, 4), NAMES, 0)]
    cache.put("a", tables, schema(NAMES))
    table = DecodedCache(tmp_path, 1 << 20).get("a")
    assert table is not None
    same(samples(7), list(from_table(table, NAMES)))


def test_an_empty_shard_is_remembered(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 1 << 20)
    cache.put("a", [], schema(NAMES))
    table = cache.get("a")
    assert table is not None
    assert table.num_rows == 0


def test_the_bound_is_kept(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 20_000)
    for name in "abcdefghijklmnop":
        cache.put(name, [to_table(samples(10), NAMES, 0)], schema(NAMES))
    assert 0 < sum(p.stat().st_size for p in tmp_path.iterdir()) <= 20_000
    assert cache.get("a") is not None
    assert cache.get("p") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "grow"])
def test_a_damaged_file_is_noticed_and_removed(tmp_path: Path, damage: str) -> None:
    DecodedCache(tmp_path, 1 << 20).put("a", [to_table(samples(9), NAMES, 0)], schema(NAMES))
    path = next(tmp_path.iterdir())
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[:-9], "grow": data + b"x"}.get(damage, data))
    assert DecodedCache(tmp_path, 1 << 20).get("a") is None
    assert not list(tmp_path.iterdir())


def test_names_with_glob_characters_and_common_beginnings(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, 1 << 20)
    cache.put("x[1]", [to_table(samples(2), NAMES, 0)], schema(NAMES))
    cache.put("x", [to_table(samples(3), NAMES, 0)], schema(NAMES))
    assert cache.get("x[1]").num_rows == 2  # type: ignore[union-attr]
    assert cache.get("x").num_rows == 3  # type: ignore[union-attr]
    assert cache.get("x1") is None


def test_the_folder_is_this_users_alone(tmp_path: Path) -> None:
    DecodedCache(tmp_path / "cache" / "a", 1)
    assert [(tmp_path / "cache" / p).stat().st_mode & 0o777 for p in (".", "a")] == [0o700] * 2
    DecodedCache(tmp_path / "cache" / "a", 1)


def test_a_folder_of_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all, linked = tmp_path / "open", tmp_path / "linked"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    linked.symlink_to(tmp_path)
    for folder in (open_to_all, linked):
        with pytest.raises(ConfigError, match="is not this user's alone"):
            DecodedCache(folder, 1)
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="is not this user's alone"):
        DecodedCache(tmp_path / "theirs", 1)
