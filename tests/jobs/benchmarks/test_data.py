"""Runs for benchmarks: shards repeated to size, modalities chosen, models that need no training."""

from __future__ import annotations

from pathlib import Path

from jobs.benchmarks import data
from multimem_ray.demo.dataset import make_demo_shards
from multimem_ray.setup import inspect, load


def small_run(folder: Path, *modalities: str) -> Path:
    """24 samples in three shards, two models."""
    shards = [str(path) for path in make_demo_shards(folder / "demo", samples=8, shards=1)]
    return data.make_run(folder, shards, samples=24, models=2, modalities=modalities)


def test_shards_are_repeated_to_size_and_modalities_chosen(tmp_path: Path) -> None:
    run, shards = inspect(load(small_run(tmp_path, "audio", "text"), []))
    assert run.modalities == ("audio", "text")
    assert len(shards.scored) == 3
    assert all(run.model_folder(model).is_done() for model in run.design.model_ids())


def test_without_shards_the_demo_has_some(tmp_path: Path) -> None:
    shards = data.shards_or_demo((), tmp_path, samples=100)
    assert len(data.read_samples(shards)) == 100 // len(shards)
    assert data.shards_or_demo(("a.tar",), tmp_path) == ["a.tar"]
