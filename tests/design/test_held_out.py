"""The held-out rule and the cap on what enters the mean vectors."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimem_ray.config import DesignConfig, HeldOutConfig
from multimem_ray.design import BalancedCap, HeldOutRule, make_design
from multimem_ray.errors import HeldOutError

KEYS = [f"clips/{i:06d}" for i in range(20_000)]


def rule(seed: int = 0, **settings: object) -> HeldOutRule:
    return HeldOutRule(HeldOutConfig.model_validate(settings), seed)


def test_a_fraction_is_held_out_whatever_the_shard() -> None:
    held = rule(fraction=0.05).is_held_out(KEYS, "a.tar")
    assert held.dtype == np.bool_
    assert held.mean() == pytest.approx(0.05, abs=0.006)
    assert (held == rule(fraction=0.05).is_held_out(KEYS, "b.tar")).all()
    assert (held != rule(seed=1, fraction=0.05).is_held_out(KEYS, "a.tar")).any()


def test_a_larger_fraction_keeps_what_was_held_out() -> None:
    small = rule(fraction=0.05).is_held_out(KEYS, "a.tar")
    large = rule(fraction=0.10).is_held_out(KEYS, "a.tar")
    assert large[small].all()


def test_a_group_is_held_out_together() -> None:
    groups = [f"recording-{i % 100}" for i in range(1000)]
    held = rule(fraction=0.3).is_held_out(groups, "a.tar").reshape(10, 100)
    assert (held == held[0]).all()
    assert held.any()
    assert not held.all()


def test_independent_of_membership_and_rank() -> None:
    """Also with the same seed: H must look like the rest, and the capped part like all of H."""
    held_out = rule(fraction=0.3)
    held = held_out.is_held_out(KEYS, "a.tar")
    members = make_design(DesignConfig(models=8)).members(KEYS)
    assert np.abs(members[held].mean(axis=0) - 0.5).max() < 0.025
    assert held_out.rank(KEYS)[held].mean() == pytest.approx(0.5, abs=0.02)


def test_listed_shards_are_held_out_whole() -> None:
    held_out = HeldOutRule(
        HeldOutConfig(shards="s3://x/ood-{0..1}.tar"), 0, ["s3://x/ood-0.tar", "s3://x/ood-1.tar"]
    )
    assert held_out.is_held_out(["a", "b"], "s3://x/ood-1.tar").tolist() == [True, True]
    assert held_out.is_held_out(["a", "b"], "s3://x/0.tar").tolist() == [False, False]
    assert held_out.describe()["shards"] == ["s3://x/ood-0.tar", "s3://x/ood-1.tar"]
    assert pickle.loads(pickle.dumps(held_out)).is_held_out(["a"], "s3://x/ood-0.tar").all()


def test_a_rule_that_cannot_work_is_named() -> None:
    with pytest.raises(HeldOutError, match=r"held_out\.shards = 'ood/\*\.tar' matches no shard"):
        HeldOutRule(HeldOutConfig(shards="ood/*.tar"), 0, [])
    for fraction in (0.0, 1.0):
        with pytest.raises(HeldOutError, match=rf"held_out\.fraction = {fraction}"):
            rule(fraction=fraction)


def fill(cap: BalancedCap, items: list[tuple[str, float, str | None]]) -> BalancedCap:
    names, ranks, labels = zip(*items, strict=True) if items else ((), (), ())
    cap.add(names, ranks, labels)
    return cap


items_of = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["a", "b", "c", None])),
    max_size=60,
).map(lambda drawn: [(f"{i}", rank, label) for i, (rank, label) in enumerate(drawn)])


@given(items_of, st.integers(1, 12))
def test_the_cap_takes_evenly_and_by_rank(
    items: list[tuple[str, float, str | None]], most: int
) -> None:
    cap = fill(BalancedCap(most), items)
    chosen = set(cap.chosen())
    assert len(chosen) == len(cap) == min(most, len(items))
    there = Counter(label for _, _, label in items)
    taken = Counter(label for name, _, label in items if name in chosen)
    for label, count in taken.items():
        ranked = sorted((rank, name) for name, rank, of in items if of == label)
        assert all((name in chosen) == (place < count) for place, (_, name) in enumerate(ranked))
    unfinished = [taken[label] for label in there if taken[label] < there[label]]
    if unfinished:
        assert max(taken.values()) <= min(unfinished) + 1


@settings(max_examples=300)
@given(items_of, st.integers(1, 8), st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_choice_depends_on_neither_order_nor_workers(
    items: list[tuple[str, float, str | None]], most: int, size: int, random: object
) -> None:
    expected = fill(BalancedCap(10**6), items).chosen()[:most]
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    workers = [BalancedCap(most) for _ in range(3)]
    for start in range(0, len(shuffled), size):
        fill(workers[start % 3], shuffled[start : start + size])
    merged = BalancedCap(most)
    for worker in workers:
        merged.merge(worker)
        assert len(worker._shown) <= 2 * most
    assert merged.chosen() == expected


def test_without_labels_the_smallest_ranks_are_chosen() -> None:
    held_out = rule(fraction=0.5, max_samples=100)
    ranks = held_out.rank(KEYS)
    cap = held_out.cap()
    for start in range(0, len(KEYS), 256):
        cap.add(KEYS[start : start + 256], ranks[start : start + 256])
    assert cap.chosen() == [KEYS[i] for i in np.argsort(ranks)[:100]]


def test_a_name_shown_twice_counts_once() -> None:
    cap = BalancedCap(3)
    cap.add(["a", "b", "a"], [0.1, 0.2, 0.1])
    cap.add(["b"], [0.2])
    assert cap.chosen() == ["a", "b"]
    assert len(cap) == 2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(HeldOutError, match=r"held_out\.max_samples = 0"):
        BalancedCap(0)
    with pytest.raises(ValueError, match="caps of 2 and 3"):
        BalancedCap(2).merge(BalancedCap(3))
    with pytest.raises(ValueError, match="shorter"):
        BalancedCap(2).add(["a", "b"], [0.5])
