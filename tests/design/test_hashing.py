"""Hashed numbers: pinned, fair, independent of order, of one another and of how many are asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.design import bits, seed_of, uniform

KEYS = [f"clips/{i:06d}" for i in range(20_000)]
texts = st.text(st.characters(exclude_categories=()), max_size=20)


def test_values_are_pinned() -> None:
    """Everything a run has written depends on them: they must be the same for ever."""
    assert uniform(0, "test", ["a", "b", "é"]).tolist() == [
        0.05377579801435006,
        0.9788848653873953,
        0.03354488627116514,
    ]
    assert "".join("01"[int(bit)] for bit in bits(0, "t", ["a"], 12)[0]) == "110010111011"
    assert seed_of(0, "score", "a", 1, "image") == 10842343934574742304


def test_uniform_is_uniform() -> None:
    counts, _ = np.histogram(uniform(0, "test", KEYS), bins=20, range=(0, 1))
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 43.8  # 99.9 % quantile for 19 degrees of freedom


@pytest.mark.parametrize(
    ("seed", "purpose"), [(0, "test "), (1, "test"), (0, "tes"), (2**70, "test"), (-1, "test")]
)
def test_seeds_and_purposes_are_independent(seed: int, purpose: str) -> None:
    correlation = np.corrcoef(uniform(0, "test", KEYS), uniform(seed, purpose, KEYS))[0, 1]
    assert abs(correlation) < 0.025


@given(st.lists(texts, max_size=8), st.randoms(use_true_random=False))
def test_a_key_has_its_number_whatever_stands_beside_it(keys: list[str], random: object) -> None:
    order = list(range(len(keys)))
    random.shuffle(order)  # type: ignore[attr-defined]
    together = uniform(5, "test", keys)
    assert ((together >= 0) & (together < 1)).all()
    assert uniform(5, "test", [keys[i] for i in order]).tolist() == together[order].tolist()
    together_bits = bits(5, "test", keys, 9)
    assert [bits(5, "test", [key], 9)[0].tolist() for key in keys] == together_bits.tolist()


@given(texts, st.integers(0, 1100), st.integers(0, 1100))
def test_more_bits_append(key: str, few: int, many: int) -> None:
    few, many = sorted((few, many))
    assert bits(0, "test", [key], many)[:, :few].tolist() == bits(0, "test", [key], few).tolist()


def test_bits_are_fair_and_independent() -> None:
    drawn = bits(0, "test", KEYS, 520)[:, [0, 1, 7, 8, 511, 512, 519]]
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 0.012
    correlations = np.corrcoef(drawn.T) - np.eye(7)
    assert np.abs(correlations).max() < 0.025


def test_nothing_asked_nothing_given() -> None:
    assert uniform(0, "test", []).shape == (0,)
    assert bits(0, "test", [], 3).shape == (0, 3)
    assert bits(0, "test", ["a", "b"], 0).shape == (2, 0)


def test_names_that_were_no_utf8_keep_apart() -> None:
    names = [b"caf\xe9".decode("utf-8", "surrogateescape"), "café", "caf\ud800"]
    assert len(set(uniform(0, "test", names).tolist())) == 3


parts = st.lists(st.one_of(st.integers(), texts), max_size=4)


@given(parts, parts)
def test_seeds_differ_where_their_parts_do(a: list[str | int], b: list[str | int]) -> None:
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (seed_of(*a) == seed_of(*b)) == same
    assert 0 <= seed_of(*a) < 2**64


def test_seed_of_tells_apart_what_joins_alike() -> None:
    assert len({seed_of("a", "b"), seed_of("ab"), seed_of("a", "b", ""), seed_of("b", "a")}) == 4
    assert seed_of(1) != seed_of("1")
    assert seed_of(np.int64(7)) == seed_of(7)
    with pytest.raises(TypeError):
        seed_of(1.5)  # type: ignore[arg-type]
