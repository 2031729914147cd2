"""The memory of a model: what is counted, and how it grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.training.memory import ModelMemory, model_memory
from tests.small import small_run

HALF = "training.precision=bf16"


def memory(folder: Path, *sets: str) -> ModelMemory:
    return model_memory(small_run(folder, *sets)[0])


def test_state_is_what_the_optimizer_needs(tmp_path: Path) -> None:
    from multimem_ray.models.build import build_model

    run, _ = small_run(tmp_path)
    model = build_model(run.config.model, run.decoder.modalities, 0)
    weights = sum(p.nbytes for p in model.parameters())
    buffers = sum(b.nbytes for b in model.buffers())
    assert memory(tmp_path).state == 4 * weights + buffers
    assert memory(tmp_path, "training.optimizer=sgd").state == 3 * weights + buffers
    text = sum(p.nbytes for p in model.towers["text"].parameters())
    assert memory(tmp_path, "model.freeze=[text]").state == 4 * weights + buffers - 3 * text


def test_a_step_grows_with_the_batch_and_shrinks_with_micro_batches(tmp_path: Path) -> None:
    whole = memory(tmp_path)
    assert memory(tmp_path, "training.batch_size=16").step == pytest.approx(
        2 * whole.step, rel=0.05
    )
    small = memory(tmp_path, "training.micro_batch=2")
    assert small.step < 0.5 * whole.step
    assert small.state == whole.state
    large = [memory(tmp_path, "training.batch_size=512", *x) for x in ((), (HALF,))]
    assert 0.4 * large[0].step < large[1].step < 0.9 * large[0].step
    # The image tower alone keeps its two larger feature maps before and after the activation.
    maps = 4 * (4 * 8 * 8 + 8 * 4 * 4) * 2
    assert whole.step > 8 * maps


def test_what_fits() -> None:
    model = ModelMemory(state=1_000_000_000, step=2_000_000_000)
    assert model.fit(10e9) == 5  # 8.5 less 1 for the device and 2 for a step
    assert model.fit(10e9, workers=2) == 6
    assert model.fit(3e9) == 0
    assert model.bank(4) == 6_000_000_000
    assert model.bank(4, at_once=2) == 8_000_000_000
    assert model.bank(1, at_once=2) == 3_000_000_000
    assert model.bank(4, workers=2) == 5_000_000_000
