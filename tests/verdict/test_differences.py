"""Differences of two scores: intervals cover the truth, and lists keep their promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from multimem_ray.verdict.differences import DifferenceBins, differences


def test_they_are_welchs() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 5), rng.normal(1, 3, 9)
    told = differences(
        np.array([a.mean()]),
        np.array([stats.sem(a)]),
        4,
        np.array([b.mean()]),
        np.array([stats.sem(b)]),
        8,
    )
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert told.p[0] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (told.low[0], told.high[0]) == pytest.approx((interval.low, interval.high))


def test_very_many_degrees_are_normal_and_what_is_unknown_stays_so() -> None:
    one, error = np.array([1.0, np.nan, 1.0]), np.array([0.3, 0.3, np.nan])
    told = differences(np.zeros(3), error, math.inf, one, error, math.inf)
    z = 1 / math.hypot(0.3, 0.3)
    assert told.p[0] == pytest.approx(2 * stats.norm.sf(z))
    assert told.high[0] - told.low[0] == pytest.approx(2 * 1.959964 * math.hypot(0.3, 0.3))
    assert np.isnan(told.p[1:]).all()
    assert np.isnan(told.low[1:]).all()
    same = differences(one[:1], np.zeros(1), 3, one[:1], np.zeros(1), 3)
    assert np.isnan(same.p[0])


def test_lists_are_as_false_as_they_say() -> None:
    rng = np.random.default_rng(1)
    n, df = 20_000, 6
    moved = rng.random(n) < 0.2
    truth = np.where(moved, rng.choice([-2.0, 2.0], n), 0.0)

    def measured(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variance = 0.2**2 * rng.chisquare(df, n) / df
        return level + 0.2 * rng.normal(size=n), np.sqrt(variance)

    (a, a_error), (b, b_error) = measured(np.zeros(n)), measured(truth)
    told = differences(a, a_error, df, b, b_error, df)
    assert ((told.low <= truth) & (truth <= told.high)).mean() == pytest.approx(0.95, abs=0.01)
    bins = DifferenceBins()
    for part in np.array_split(told.p, 7):
        bins.update(part)
    q = bins.q(told.p)
    exact = stats.false_discovery_control(told.p)
    assert (q >= exact * 0.999).all()
    assert q[exact > 1e-9] == pytest.approx(exact[exact > 1e-9], rel=0.02)
    listed = q <= 0.05
    assert (~moved[listed]).mean() < 0.055
    assert listed[moved].mean() > 0.9
    assert np.isnan(bins.q(np.array([np.nan]))[0])
