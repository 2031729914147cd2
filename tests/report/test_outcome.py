"""Intervals of what models can do, and the sentence on a mitigation."""

from __future__ import annotations

from typing import Any

import pytest

from multimem_ray.report.outcome import (
    difference_interval,
    evaluation_rows,
    mitigation_verdict,
    share_interval,
    utility_intervals,
)


def evaluation(recall: float, samples: int = 43) -> dict[str, Any]:
    row = {"query": ["image"], "target": "text", "samples": samples, "recall": {"1": {}}}
    probe = {"image": {"samples": 40, "chance": 0.25}}
    return {
        "models": {"m0": {"retrieval": [row], "probe": probe, "zero_shot": {}}},
        "mean": [
            {"task": "R@1", "of": "image → text", "mean": recall},
            {"task": "probe", "of": "image", "mean": 0.5},
        ],
    }


def test_intervals_are_wilsons_and_newcombes() -> None:
    assert share_interval(0.5, 10) == pytest.approx({"low": 0.2366, "high": 0.7634}, abs=1e-4)
    ends = difference_interval(0.182, 0.163, 43)
    assert ends["low"] < -0.1 < 0.1 < ends["high"]
    assert difference_interval(0.9, 0.1, 200)["high"] < -0.7


def test_rows_have_interval_chance_and_samples() -> None:
    recall, probe = evaluation_rows(evaluation(0.182))
    assert recall["low"] < 0.182 < recall["high"]
    assert recall["chance"] == pytest.approx(1 / 43)
    assert (probe["samples"], probe["chance"]) == (40, 0.25)
    assert evaluation_rows({}) == []


def result(high: float | None) -> dict[str, Any]:
    memory: dict[str, Any] = {"before": {"all": 0.30}, "after": {"all": 0.20}}
    if high is not None:
        memory["intervals"] = {"difference": {"all": {"low": -0.2, "high": high}}}
    old, new = evaluation(0.182), evaluation(0.163)
    return {
        "memory": memory,
        "utility": {"before": {"R@1": 0.182}, "after": {"R@1": 0.163}},
        "utility_intervals": utility_intervals(old, new),
    }


@pytest.mark.parametrize(
    ("high", "said"),
    [(-0.05, "less is memorized"), (0.05, "no clear change"), (None, "is not known")],
)
def test_the_verdict_is_one_sentence_that_knows_chance(high: float | None, said: str) -> None:
    verdict = mitigation_verdict(result(high))
    assert said in verdict
    assert "changed by −1.9 points" in verdict
    assert "not distinguishable from none" in verdict
    assert verdict.count(". ") == 0
    assert mitigation_verdict({}) == ""
