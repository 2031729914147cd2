"""Thresholds are data: each is one of a benchmark that there is, and is judged where it applies."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.benchmarks.figures import Figures
from jobs.benchmarks.runner import NAMES
from jobs.benchmarks.thresholds import load_thresholds, shortfalls

YAML = """
scoring:
  ours:
    rate: {direction: at least, bound: 10, machine: any, means: it is fast}
    seconds: {direction: at most, bound: 2, machine: gpu, means: it starts}
    unmeasured: {direction: at most, bound: 2, machine: any, means: nothing}
"""


def test_every_threshold_is_of_a_benchmark() -> None:
    thresholds = load_thresholds()
    assert set(thresholds) == set(NAMES)
    assert all(
        t.means for rows in thresholds.values() for own in rows.values() for t in own.values()
    )


@pytest.mark.parametrize(
    ("rate", "gpu", "columns"),
    [
        (10.0, False, []),
        (9.0, False, ["rate"]),
        (9.0, True, ["rate", "seconds"]),
    ],
)
def test_what_misses_its_bound_is_said(
    tmp_path: Path, rate: float, gpu: bool, columns: list[str]
) -> None:
    path = tmp_path / "thresholds.yaml"
    path.write_text(YAML)
    figures = Figures()
    figures.add("ours", {"rate": rate, "seconds": 3.0})
    short = list(shortfalls("scoring", figures, load_thresholds(path), gpu=gpu))
    assert [line.split(": ")[1] for line in short] == [f"ours, {column}" for column in columns]
    if short:
        assert short[0] == "scoring: ours, rate: 9, expected at least 10.0 (it is fast)"
    assert not list(shortfalls("training", figures, load_thresholds(path), gpu=gpu))


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.yaml"
    path.write_text(YAML.replace("means", "meaning"))
    with pytest.raises(ValidationError, match="meaning"):
        load_thresholds(path)
