"""The order of training: a permutation, a function of the seed, blind to how shards were listed."""

from __future__ import annotations

from multimem_ray.training.order import shard_order, shuffled

NAMES = [f"{i:03d}.tar" for i in range(40)]


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
