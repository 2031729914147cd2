"""Epochs of samples: the same order wherever they were decoded, and whether or not they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimem_ray.run import Run
from multimem_ray.store.names import shard_id
from multimem_ray.training import stream as streams
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.stream import TrainingStream, shard_order, shuffled
from tests.small import small_run, write_shards

NAMES = [f"{i:03d}.tar" for i in range(40)]


def stream(folder: Path, name: str, *sets: str, decoders: int = 2) -> TrainingStream:
    run, shards = small_run(folder, "training.shuffle_buffer=7", *sets)
    return TrainingStream(run, shards.scored, DecodedCache(folder / name, 10**9), decoders)


def seen(made: TrainingStream, epoch: int = 0) -> list[tuple[str, float, bytes]]:
    return [
        (sample.key, share, b"".join(sample.arrays[m].tobytes() for m in sorted(sample.arrays)))
        for sample, share in made.epoch(epoch)
    ]


@pytest.mark.parametrize("decoders", [1, 2, 5])
def test_decoding_here_and_on_the_cluster_are_the_same(
    tmp_path: Path, ray_session: Any, decoders: int
) -> None:
    del ray_session
    write_shards(tmp_path / "shards", 40, 4)
    here = seen(stream(tmp_path, "a", "resources.train.decode=worker", decoders=decoders))
    there = seen(stream(tmp_path, "b", "resources.train.decode=ray"))
    assert here == there
    assert len(here) > 20


def test_later_epochs_decode_nothing(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 40, 4)
    made = stream(tmp_path, "a")
    first = seen(made)

    def refuse(_: Any) -> None:
        raise AssertionError("decoded again")

    made.run.decoder.decode = refuse  # type: ignore[method-assign, assignment]
    assert sorted(seen(made, 1)) != sorted(first), "shares follow the order of the shards"
    assert {key for key, _, _ in seen(made, 1)} == {key for key, _, _ in first}
    again = seen(made, 0)
    assert again == first


def test_a_damaged_cache_file_is_decoded_again(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 40, 4)
    made = stream(tmp_path, "a")
    first = seen(made)
    damaged = next((tmp_path / "a").glob(f"{shard_id(made.shards[1].url)}*.arrow"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    assert seen(stream(tmp_path, "a")) == first
    assert seen(stream(tmp_path, "a")) == first


def test_a_shard_without_training_samples_is_passed_over(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 40, 4)
    run, shards = small_run(tmp_path, "design.pool=0.1", "held_out.fraction=0.01")
    made = TrainingStream(run, shards.scored, DecodedCache(tmp_path / "a", 10**9), 2)
    inside = {s for s in (f"s{i:04d}" for i in range(40)) if in_training(run, s)}
    assert inside
    assert {key for key, _, _ in seen(made)} == inside


def in_training(run: Run, key: str) -> bool:
    held = run.held_out_rule.is_held_out([key], "")[0]
    return bool(run.design.in_pool([key])[0] and not held)


def test_large_sets_are_decoded_by_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stream(tmp_path, "a")
    asked: list[str] = []
    for name in ("_here", "_on_the_cluster"):
        monkeypatch.setattr(
            TrainingStream, name, lambda *_, name=name: (asked.append(name), iter(()))[1]
        )
    list(made.epoch(0))
    monkeypatch.setattr(streams, "SMALL_BYTES", 1)
    list(stream(tmp_path, "b").epoch(0))
    assert asked == ["_here", "_on_the_cluster"]


def test_epochs_differ_and_repeat(tmp_path: Path) -> None:
    made = stream(tmp_path, "a")
    orders = [[key for key, _, _ in seen(made, epoch)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert np.unique(orders[0]).size == len(orders[0])


def test_shard_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    first, second = shard_order(NAMES, 0, 0), shard_order(NAMES, 0, 1)
    assert sorted(first) == list(range(40))
    assert first != second
    assert first == shard_order(NAMES, 0, 0)


def test_shard_order_does_not_depend_on_the_listing() -> None:
    backwards = NAMES[::-1]
    assert [NAMES[i] for i in shard_order(NAMES, 3, 5)] == [
        backwards[i] for i in shard_order(backwards, 3, 5)
    ]


def test_shuffling_loses_and_doubles_nothing() -> None:
    for size in (1, 7, 100, 500):
        assert sorted(shuffled(range(300), size, 0, 0)) == list(range(300))


def test_shuffling_is_a_function_of_seed_and_epoch() -> None:
    def run(seed: int, epoch: int) -> list[int]:
        return list(shuffled(range(100), 30, seed, epoch))

    assert run(0, 0) == run(0, 0)
    assert run(0, 0) != run(0, 1)
    assert run(0, 0) != run(1, 0)
    assert run(0, 0) != list(range(100))


def test_a_buffer_as_large_as_the_stream_shuffles_all_of_it() -> None:
    firsts = {next(iter(shuffled(range(50), 50, 0, epoch))) for epoch in range(60)}
    assert len(firsts) > 25
