"""The training benchmark compares like with like: its parts make the same models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.benchmarks import training as benchmark
from jobs.benchmarks.figures import Figures
from jobs.benchmarks.thresholds import load_thresholds
from multimem_ray.setup import inspect
from multimem_ray.training.bank import Bank
from tests.small import small_config, write_shards


def test_a_model_alone_is_the_model_of_the_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(write_shards(tmp_path / "shards"), tmp_path / "out", "design.models=4")
    run, shards = inspect(config)
    made: list[dict[str, torch.Tensor]] = []

    class Kept(Bank):
        def train_epoch(self, number: int, samples: object) -> object:  # type: ignore[override]
            lines = super().train_epoch(number, samples)  # type: ignore[arg-type]
            if number + 1 == config.training.epochs:
                made.append({n: v.clone() for n, v in self.models[0].model.state_dict().items()})
            return lines

    monkeypatch.setattr(benchmark, "Bank", Kept)
    assert benchmark.train_here(run, shards, run.design.model_ids(), 2) > 0
    assert benchmark.train_here(run, shards, ["000"], 1) > 0
    together, alone = made
    for name, value in together.items():
        torch.testing.assert_close(alone[name], value, atol=1e-6, rtol=0)


def test_what_the_cache_saved_is_set_beside_what_decoding_costs() -> None:
    figures = Figures()
    for side, cpu, training in (("banks", 50, 9), ("uncached", 68, 9), ("decode", 9, 2)):
        figures.add(side, {benchmark.CPU: cpu, benchmark.TRAINING: training})
    # 18 s saved in 9 epochs, in each of which decoding costs 2.
    assert benchmark.cache_ratio(figures, 10) == 1.0


def test_decoding_alone_takes_time(tmp_path: Path) -> None:
    config = small_config(write_shards(tmp_path / "shards"), tmp_path / "out")
    assert 0 < benchmark.decode(config) < 60


@pytest.mark.slow
def test_the_sides_beside_each_other(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    options = benchmark.Options((str(shards / "*.tar"),), models=2, epochs=2)
    figures = benchmark.measure(options, tmp_path)
    assert figures.rows.keys() == set(options.sides)
    for row, columns in load_thresholds()["training"].items():
        assert columns.keys() <= figures.rows[row].keys()
