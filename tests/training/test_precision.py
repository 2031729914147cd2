"""Training in half precision: it learns, resumes exactly, and knows overflow from divergence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multimem_ray.errors import ConfigError, TrainingError
from multimem_ray.models.precision import require_precision
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from tests.scoring.bank_of import batch_of
from tests.small import small_run
from tests.training.epochs import epoch

CPU = torch.device("cpu")


def half_run(folder: Path, precision: str, *sets: str) -> tuple[Run, list[Any]]:
    try:
        require_precision(CPU, precision, "training.precision")  # type: ignore[arg-type]
    except ConfigError as error:
        pytest.skip(str(error))
    run, shards = small_run(folder, f"training.precision={precision}", *sets)
    return run, [s for shard in shards.scored for s in training_samples(run, shard)]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_falls(precision: str, tmp_path: Path) -> None:
    run, decoded = half_run(tmp_path, precision, "training.epochs=12", "training.warmup_steps=0")
    bank = Bank(run, ["000"], CPU, threads=1)
    lines = [bank.train_epoch(n, epoch(run, decoded, n))["000"] for n in range(12)]
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert ("skipped_steps" in lines[0]) == (precision == "fp16")
    assert all(p.dtype == torch.float32 for p in bank.models[0].model.parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_resumed_training_is_the_undisturbed_one(precision: str, tmp_path: Path) -> None:
    run, decoded = half_run(tmp_path, precision)
    straight = Bank(run, ["000"], CPU, threads=1)
    if precision == "fp16":  # so large that the first steps are skipped
        straight.models[0].scaler._init_scale = 2.0**40
    skipped = straight.train_epoch(0, epoch(run, decoded, 0))["000"].get("skipped_steps")
    assert precision == "bf16" or skipped
    straight.checkpoint()
    resumed = Bank(run, ["000"], CPU, threads=1)
    for bank in (straight, resumed):
        bank.train_epoch(1, epoch(run, decoded, 1))
    for a, b in zip(*(x.models[0].model.parameters() for x in (straight, resumed)), strict=True):
        assert torch.equal(a, b)
    assert straight.models[0].scaler.state_dict() == resumed.models[0].scaler.state_dict()


def test_skipped_steps_are_no_divergence_unless_there_is_no_end_of_them(tmp_path: Path) -> None:
    run, decoded = half_run(tmp_path, "fp16", "training.epochs=20")
    bank = Bank(run, ["000"], CPU, threads=1)
    model = bank.models[0]
    weights = [p.clone() for p in model.model.parameters()]
    with torch.no_grad():
        model.model.log_scales.fill_(torch.nan)  # every loss, every gradient
    line = bank.train_epoch(0, epoch(run, decoded, 0))["000"]
    assert line["skipped_steps"] == line["step"] > 1
    assert line["loss"] is None
    for before, now in zip(weights, model.model.parameters(), strict=True):
        assert now is model.model.log_scales or torch.equal(before, now)
    with pytest.raises(TrainingError, match=r"model 000: .*fp16.*at step \d+.*bf16"):
        [bank.train_epoch(n, epoch(run, decoded, n)) for n in range(1, 20)]


def test_scoring_in_bf16_is_near_and_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    run, decoded = half_run(tmp_path, "fp32")
    bank = Bank(run, ["000", "001"], CPU, threads=1)
    bank.finish()
    half, _ = half_run(tmp_path, "fp32", "scoring.precision=bf16")
    views = batch_of(run, {s.key: s.arrays for s in decoded})
    full, rough = (ScoringBank(r, CPU).embed(views) for r in (run, half))
    assert rough.dtype == torch.float32
    assert 1e-6 < (full - rough).abs().max() < 0.05
    assert half.fingerprint != run.fingerprint
    assert half.training_fingerprint == run.training_fingerprint
