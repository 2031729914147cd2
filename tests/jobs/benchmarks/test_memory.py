"""Peak memory of runs of several sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmarks import memory
from jobs.benchmarks.memory import GROWTH
from jobs.benchmarks.thresholds import load_thresholds
from multimem_ray.demo.dataset import make_demo_shards

pytestmark = pytest.mark.slow


def test_memory_is_watched_in_runs_of_two_sizes(tmp_path: Path) -> None:
    shards = make_demo_shards(tmp_path / "demo", samples=8, shards=1)
    options = memory.Options(
        (str(shards[0]),), samples=(32, 64), stored=(500,), models=2, modalities=("image", "text")
    )
    figures = memory.measure(options, tmp_path / "run")
    whole = figures.rows["shards: all processes"]
    assert whole[GROWTH] == [whole["MB, 64 samples"][0] / whole["MB, 32 samples"][0]]
    assert any(row.startswith("shards: ray::") for row in figures.rows)
    assert load_thresholds()["memory"].keys() <= figures.rows.keys()


def test_memory_does_not_grow_with_a_stored_set(tmp_path: Path) -> None:
    for aligned, more in ((True, 60e6), (False, 300e6)):
        small, large = (memory.stored_peak(tmp_path / "set", n, aligned) for n in (50_000, 400_000))
        assert large < small + more
