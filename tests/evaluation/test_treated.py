"""Intervals and curves of a mitigation, against figures that are known."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.evaluation.treated import mean_interval, memory_curves, memory_intervals


def test_the_interval_is_students() -> None:
    ends = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert ends == pytest.approx({"low": 3 - 1.9632, "high": 3 + 1.9632}, abs=1e-3)
    assert mean_interval(np.array([1.0])) is None


def test_a_change_is_paired() -> None:
    old = np.random.default_rng(0).normal(size=200)
    made = memory_intervals(old, old - 0.1, {"all": np.ones(200, bool), "chosen": old > 9})
    assert made["difference"]["all"] == pytest.approx({"low": -0.1, "high": -0.1})
    assert made["difference"]["chosen"] is None


def test_curves_rise_over_shares_of_the_samples() -> None:
    curves = memory_curves(np.arange(101.0), np.zeros(101))
    assert curves["before"][0] == pytest.approx([0.01, 1.0])
    assert curves["before"][-1] == pytest.approx([0.99, 99.0])
    assert {score for _, score in curves["after"]} == {0.0}
