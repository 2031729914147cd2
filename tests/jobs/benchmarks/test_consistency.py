"""Scoring is measured against held-out sets of several sizes."""

from __future__ import annotations

from pathlib import Path

import torch

from jobs.benchmarks import consistency
from jobs.benchmarks.consistency import ALONE, SCORING
from jobs.benchmarks.thresholds import load_thresholds
from multimem_ray.demo.dataset import make_demo_shards
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.setup import inspect, load
from tests.jobs.benchmarks.test_data import small_run


def test_the_cost_of_a_sample_by_the_size_of_the_held_out_set(tmp_path: Path) -> None:
    shards = make_demo_shards(tmp_path / "demo", samples=8, shards=1)
    options = consistency.Options(
        (str(shards[0]),), models=2, modalities=("image", "text"), held_out=(10, 5000), repeats=2
    )
    figures = consistency.measure(options, tmp_path / "run")
    for size in ("10 held out", "5,000 held out"):
        assert 0 < min(figures.rows[size][ALONE]) < min(figures.rows[size][SCORING])
    ratio = figures.median("the largest set", "consistency by it")
    assert ratio is not None
    assert ratio < 5, "500 times the set"
    assert load_thresholds()["consistency"].keys() <= figures.rows.keys()


def test_made_up_means_are_those_of_all_vectors(tmp_path: Path) -> None:
    run, _ = inspect(load(small_run(tmp_path, "image", "text"), []))
    bank = ScoringBank(run, torch.device("cpu"))
    few, many = (consistency.means_of(run, bank, size) for size in (5, 10_000))
    assert few.shape == many.shape == (2, 2, bank.dim)
    assert many.norm(dim=-1).max() < 0.1 * few.norm(dim=-1).min()
