from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.results.accumulate import Correlation, Histogram, Moments, Plane

numbers = st.one_of(st.just(np.nan), st.floats(-50, 50))


@given(st.lists(numbers, min_size=1, max_size=40), st.integers(1, 7))
def test_moments_equal_those_of_the_whole(values: list[float], size: int) -> None:
    column = np.array(values)
    moments = Moments(2)
    for start in range(0, len(column), size):
        part = column[start : start + size]
        moments.update(np.stack([part, np.full(len(part), np.nan)], axis=1))
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
    moments = Moments(1)
    for part in np.split(values, 10):
        moments.update(part)
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


def test_histogram_counts_everything_and_merges_exactly() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(0.1, 0.05, 5000), [9.0, -30.0, np.nan]])
    histogram = Histogram(most=256)
    for part in np.array_split(values, 9):
        histogram.update(part)
    window = histogram.window(0.0, 0.25, 16)
    assert window is not None
    start, width, counts = window["start"], window["width"], window["counts"]
    assert window["below"] + sum(counts) + window["above"] == 5002
    edges = start + width * np.arange(len(counts) + 1)
    expected = [((values >= a) & (values < b)).sum() for a, b in pairwise(edges)]
    assert counts == expected
    assert len(counts) <= 16
    assert start <= 0.0
    assert edges[-1] > 0.25
    assert Histogram().window(0, 1, 8) is None


def test_plane_counts_points_in_square_bins() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, 0.1, 3000), rng.normal(0.2, 0.3, 3000)
    x[0], y[1] = np.nan, 40.0
    plane = Plane(most=128)
    for a, b in zip(np.array_split(x, 4), np.array_split(y, 4), strict=True):
        plane.update(a, b)
    window = plane.window((0.2, 0.8), (-0.5, 1.0), 24)
    assert window is not None
    counts = np.array(window["counts"])
    assert counts.sum() + window["outside"] == 2999
    assert max(counts.shape) <= 25
    width = window["width"]
    inside = (x >= window["x"]) & (x < window["x"] + width)
    inside &= (y >= window["y"]) & (y < window["y"] + width * counts.shape[0])
    assert counts[:, 0].sum() == inside.sum()
