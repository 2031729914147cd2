"""Every side of the benchmark scores all samples, and its rates count all of its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmarks import scoring, scoring_sides
from jobs.benchmarks.scoring import RATE
from jobs.benchmarks.thresholds import load_thresholds
from multimem_ray.demo.dataset import make_demo_shards
from tests.jobs.benchmarks.test_data import small_run


def test_the_bare_side_runs_all_samples(tmp_path: Path) -> None:
    config = small_run(tmp_path, "image", "text")
    figures = scoring_sides.run_side("bare", str(config), str(tmp_path / "out"), 1)
    assert figures["samples"] == 24
    assert 0 < figures["first_s"] <= figures["until"] - figures["from"]
    assert "steady" not in figures, "three shards are too few"


def test_a_steady_rate_leaves_out_start_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = [(1000.0 + i, 10) for i in range(20)]
    monkeypatch.setitem(scoring_sides.SIDES, "bare", lambda *_: finished)
    config = small_run(tmp_path, "image", "text")
    figures = scoring_sides.run_side("bare", str(config), str(tmp_path / "out"), 2)
    assert figures["samples"] == 200
    assert figures["steady"] == 10


@pytest.mark.slow
def test_every_side_beside_the_others(tmp_path: Path) -> None:
    shards = make_demo_shards(tmp_path / "demo", samples=8, shards=1)
    options = scoring.Options(
        (str(shards[0]),), samples=32, models=2, modalities=("image", "text"), repeats=1
    )
    figures = scoring.measure(options, tmp_path / "run")
    assert list(figures.rows) == list(scoring_sides.SIDES)
    assert all(columns[RATE][0] > 0 for columns in figures.rows.values())
    assert load_thresholds()["scoring"].keys() <= figures.rows.keys()
