"""Hours and wall time, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from multimem_ray.planning.estimate import (
    STARTS_OF_BANK,
    STARTS_OF_SCORING,
    estimate,
)
from multimem_ray.planning.probe import Speed
from multimem_ray.planning.work import Work
from multimem_ray.training.memory import BankPacking, ModelMemory
from tests.small import small_config

SPEED = Speed(
    read=0.001, decode=0.009, decoded_bytes=1e4, train_view=0.001, train_step=0.002,
    score_views=0.004, score_embed=0.001, score_rows=0.001, gpu=None, step_peak_bytes=None,
    start=5.0, samples=100,
)  # fmt: skip


def work(samples: int, models: int, layout: BankPacking) -> Work:
    banks = -(-models // layout.per_bank)
    return Work(
        shards=10, size=samples * 1000, missing=0, samples=samples, held_out=0, held_out_used=0,
        pool_shards=10, trainable=samples, shares=[0.5] * models, layout=layout, banks=banks,
        parameters=1000, trained=1000, memory=ModelMemory(16_000, 1000),
    )  # fmt: skip


def test_estimate_by_hand(tmp_path: Path) -> None:
    config = small_config(tmp_path, tmp_path / "out", "training.epochs=10")
    made = estimate(config, work(1000, 4, BankPacking(4, 1, 2, 2)), SPEED, cpus=2, gpus=0)
    # decode 1000 × 10 ms on two cores; views 10 s and steps 10 × 1000 × ½ × 4 × 2 ms = 40 s,
    # in two threads beside the views: (10 + 40) / 2.
    assert made.train_s == pytest.approx(STARTS_OF_BANK * 5 + 5 + 25)
    assert made.train_cpu_hours == pytest.approx((10 + 10 + 40) / 3600)
    # 1000 × (10 + 4 + 1 + 4 × 1) ms on two cores
    assert made.score_s == pytest.approx(STARTS_OF_SCORING * 5 + 9.5)


def test_banks_share_the_decoding_and_the_start(tmp_path: Path) -> None:
    config = small_config(tmp_path, tmp_path / "out")
    together = estimate(config, work(1000, 8, BankPacking(8, 1, 2, 2)), SPEED, cpus=2, gpus=0)
    alone = estimate(config, work(1000, 8, BankPacking(1, 1, 1, 2)), SPEED, cpus=2, gpus=0)
    assert alone.train_s > 2 * together.train_s


def test_beside_a_gpu_an_actors_own_cores_decode(tmp_path: Path) -> None:
    on_gpu = replace(SPEED, gpu="some GPU", score_embed=1e-5)
    seconds = []
    for sets in (("cpus=1",), ("cpus=8", "layout=fused"), ("layout=split",)):
        more = (f"resources.score.{item}" for item in ("gpus=1", *sets))
        config = small_config(tmp_path, tmp_path / "out", *more)
        made = estimate(config, work(100_000, 4, BankPacking(4, 1, 2, 2)), on_gpu, cpus=16, gpus=2)
        seconds.append(made.score_s)
    one, eight, split = seconds
    assert one > 6 * eight
    assert eight == pytest.approx(split, rel=0.01)


def test_what_does_not_fit_the_cache_is_decoded_every_epoch(tmp_path: Path) -> None:
    layout = BankPacking(4, 1, 2, 2)
    fits = small_config(tmp_path, tmp_path / "out", "training.epochs=10")
    not_so = small_config(tmp_path, tmp_path / "out", "training.epochs=10", "training.cache_gb=0")
    a, b = (estimate(c, work(1000, 4, layout), SPEED, cpus=2, gpus=0) for c in (fits, not_so))
    assert b.train_s - a.train_s == pytest.approx(9 * 5)
