"""Statistics of streams against those of the whole."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.results.statistics import (
    Correlation,
    Floats,
    Moments,
    QuantileSketch,
    auroc,
    curve,
    delong,
    histogram,
    plane,
    precision,
    wilson,
)


def merge(moments: Moments, part: Floats) -> None:
    """Add a part as the first of two columns; the second has no value."""
    known = part[~np.isnan(part)]
    nothing = np.nan
    one = [known.mean(), known.var(), known.min(), known.max()] if len(known) else [nothing] * 4
    moments.merge(np.array([len(known), 0.0]), *(np.array([value, nothing]) for value in one))


numbers = st.one_of(st.just(np.nan), st.floats(-50, 50))


@given(st.lists(numbers, min_size=1, max_size=40), st.integers(1, 7))
def test_moments_equal_those_of_the_whole(values: list[float], size: int) -> None:
    column = np.array(values)
    moments = Moments(2)
    for start in range(0, len(column), size):
        merge(moments, column[start : start + size])
    known = column[~np.isnan(column)]
    assert moments.count.tolist() == [len(known), 0]
    if len(known):
        assert moments.mean[0] == pytest.approx(known.mean(), abs=1e-9)
        assert (moments.low[0], moments.high[0]) == (known.min(), known.max())
    if len(known) > 1:
        assert moments.std[0] == pytest.approx(known.std(ddof=1), abs=1e-7)
    assert np.isnan(moments.std[1])


def test_moments_keep_their_digits_far_from_zero() -> None:
    values = 1e8 + np.random.default_rng(0).normal(size=(1000, 1))
    moments = Moments(2)
    for part in np.split(values[:, 0], 10):
        merge(moments, part)
    assert moments.std[0] == pytest.approx(values.std(ddof=1), rel=1e-6)


def test_correlation_in_batches() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(size=(500, 1))
    values = common + rng.normal(size=(500, 3))
    values[7, 1] = np.nan
    correlation = Correlation(3)
    for part in np.array_split(values, 7):
        correlation.update(part)
    whole = np.corrcoef(np.delete(values, 7, axis=0).T)
    expected = whole[np.triu_indices(3, 1)].mean()
    assert correlation.mean_correlation() == pytest.approx(expected)
    assert Correlation(1).mean_correlation() is None


def test_a_histogram_counts_everything() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0.1, 0.05, 5000), [9.0, -30.0]])
    fine = Counter(np.floor(values / 2.0**-10).astype(int).tolist())
    window = histogram(fine, -10, (0.0, 0.25), 16)
    start, width, counts = window["start"], window["width"], window["counts"]
    assert window["below"] + sum(counts) + window["above"] == 5002
    edges = start + width * np.arange(len(counts) + 1)
    expected = [((values >= a) & (values < b)).sum() for a, b in pairwise(edges)]
    assert counts == expected
    assert len(counts) <= 16
    assert start <= 0.0
    assert edges[-1] > 0.25


def test_a_plane_counts_points_in_square_bins() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, 0.1, 3000), rng.normal(0.2, 0.3, 3000)
    y[1] = 40.0
    places = (np.floor(axis / 2.0**-8).astype(int).tolist() for axis in (x, y))
    window = plane(Counter(zip(*places, strict=True)), -8, ((0.2, 0.8), (-0.5, 1.0)), 24)
    counts = np.array(window["counts"])
    assert counts.sum() + window["outside"] == 3000
    assert max(counts.shape) <= 25
    width = window["width"]
    inside = (x >= window["x"]) & (x < window["x"] + width)
    inside &= (y >= window["y"]) & (y < window["y"] + width * counts.shape[0])
    assert counts[:, 0].sum() == inside.sum()


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
    assert delong(planted, score) == (pytest.approx(kernel.mean()), pytest.approx(expected))


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


def test_exact_while_small() -> None:
    sketch = QuantileSketch()
    sketch.update(np.array([3.0, np.nan, 1.0, 2.0, 2.0]))
    assert sketch.rank_error == 0
    assert sketch.count == 4
    assert sketch.quantiles([0.0, 0.5, 1.0]) == [1.0, 2.0, 3.0]
    got = sketch.percentiles(np.array([2.0, 0.0, np.nan, 3.0, 2.0]))
    np.testing.assert_allclose(got, [50.0, 0.0, np.nan, 87.5, 50.0])


def test_a_sketch_of_many_values_stays_within_the_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 10_000))
    whole = QuantileSketch()
    for part in values:
        whole.update(part)
    assert whole.count == values.size
    ranks = np.array([0.001, 0.1, 0.5, 0.99])
    found = np.array([(values <= q).mean() for q in whole.quantiles(list(ranks))])
    assert whole.rank_error < 0.002
    np.testing.assert_allclose(found, ranks, atol=2 * whole.rank_error)


def test_empty() -> None:
    sketch = QuantileSketch()
    assert sketch.quantiles([0.5]) == []
    assert np.isnan(sketch.percentiles(np.array([1.0]))).all()
    sketch.update(np.array([np.nan]))
    assert sketch.count == pytest.approx(0)
