from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.results.auroc import auroc, curve, delong_se, midranks, precision, wilson


def _data(n: int = 400, shift: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    planted = np.arange(n) % 5 == 0
    return planted, np.round(rng.normal(size=n) + shift * planted, 1)


def test_delong_against_the_double_sum_with_ties() -> None:
    planted, score = _data()
    hits, rest = score[planted], score[~planted]
    kernel = (hits[:, None] > rest) + 0.5 * (hits[:, None] == rest)
    assert auroc(planted, score)["auroc"] == pytest.approx(kernel.mean())
    expected = np.sqrt(
        kernel.mean(1).var(ddof=1) / len(hits) + kernel.mean(0).var(ddof=1) / len(rest)
    )
    assert delong_se(planted, score) == pytest.approx(expected)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    true = 0.7602499389065233  # Phi(1 / sqrt 2)
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        planted = np.arange(300) % 5 == 0
        found = auroc(planted, rng.normal(size=300) + planted)
        hits += found["low"] <= true <= found["high"]
    assert 180 <= hits <= 199


def test_perfect_and_impossible() -> None:
    planted = np.array([True, True, False, False])
    perfect = auroc(planted, np.array([4.0, 3.0, 2.0, 1.0]))
    assert perfect == {"auroc": 1.0, "low": None, "high": None}
    assert auroc(np.zeros(3, bool), np.arange(3.0))["auroc"] is None
    assert curve(np.zeros(3, bool), np.arange(3.0)) == []


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_midranks(values: list[int]) -> None:
    got = midranks(np.array(values, float))
    for value, rank in zip(values, got, strict=True):
        below, equal = sum(v < value for v in values), values.count(value)
        assert rank == below + (equal + 1) / 2


def test_precision_at_k() -> None:
    planted = np.array([True, False, True, False])
    found = precision(planted, np.array([4.0, 3.0, 2.0, 1.0]), [1, 2, 4, 100])
    assert [(row["k"], row["precision"]) for row in found] == [(1, 1.0), (2, 0.5), (4, 0.5)]
    assert wilson(5, 10)["low"] == pytest.approx(0.2366, abs=1e-4)
    assert wilson(10, 10)["high"] == pytest.approx(1.0)


def test_curve_is_short_and_keeps_its_area() -> None:
    planted, score = _data(20_000, 1.5)
    score = score + np.random.default_rng(1).normal(0, 1e-3, len(score))
    points = np.array(curve(planted, score))
    assert len(points) <= 128
    assert points[0].tolist() == [0.0, 0.0]
    assert points[-1].tolist() == [1.0, 1.0]
    area = np.trapezoid(points[:, 1], points[:, 0])
    assert area == pytest.approx(auroc(planted, score)["auroc"], abs=2e-3)
