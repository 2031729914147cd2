"""Micro-batches give the gradients of the whole batch; learning rates as configured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multimem_ray.config import ModelConfig, TrainingConfig
from multimem_ray.modalities import registry
from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.models.noise import add_noise, unit_noise
from multimem_ray.models.randomness import SeededDropout, draws
from multimem_ray.training.step import backward, learning_rate

CPU = torch.device("cpu")
ROWS = {"audio": [0, 1, 2, 5, 8], "image": [0, 2, 3, 4, 5, 6, 7, 8], "text": list(range(9))}


def build() -> ContrastiveModel:
    settings = {"audio": {"seconds": 0.1}, "image": {"size": 16}, "text": {}}
    modalities = [registry.create(name, value) for name, value in settings.items()]
    towers = {"audio": {"width": 4}, "image": {"width": 4}}
    # In double precision, so that what differs is not rounding.
    return build_model(ModelConfig(dim=8, towers=towers), modalities, 0).double()


def values() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = {
        "audio": torch.randint(-9000, 9000, (5, 800), generator=generator).to(torch.int16),
        "image": torch.randint(0, 255, (8, 3, 16, 16), generator=generator).to(torch.uint8),
        "text": torch.randint(1, 99, (9, 32), generator=generator).int(),
    }
    return made, {name: torch.tensor(rows) for name, rows in ROWS.items()}


def prepared(model: ContrastiveModel, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = model.prepare(raw)
    return {n: x.double() if x.is_floating_point() else x for n, x in found.items()}


def same(found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return found


def gradients(
    model: ContrastiveModel, micro_batch: int | None, change: Any = same, active: bool = False
) -> dict[str, Tensor]:
    raw, rows = values()
    dropout = partial(SeededDropout(active, CPU, Lock()).of, "test")
    model.zero_grad()
    loss = backward(
        model,
        prepared(model, raw),
        rows,
        micro_batch=micro_batch,
        change=change,
        dropout=dropout,
        scale=lambda x: 8 * x,
    )
    found = {name: p.grad / 8 for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss} | found


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 100])
def test_micro_batches_are_the_whole_batch(micro_batch: int) -> None:
    def noisy(found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {n: add_noise(x, unit_noise(len(x), 8, 1, CPU), 0.2) for n, x in found.items()}

    model = build()
    raw, rows = values()
    expected = model.loss(prepared(model, raw), rows)
    whole = gradients(model, None)
    torch.testing.assert_close(whole["loss"], expected)
    assert len(whole) == 1 + len(list(model.parameters()))
    for change in (same, noisy):
        whole, parts = gradients(model, None, change), gradients(model, micro_batch, change)
        assert_near(parts, whole)


def test_the_loss_of_micro_batches_alone_is_another() -> None:
    model = build()
    raw, rows = values()
    features = prepared(model, raw)
    halves = []
    for at in (range(4), range(4, 9)):
        kept = {n: [i for i, row in enumerate(ROWS[n]) if row in at] for n in ROWS}
        part = {n: features[n][i] for n, i in kept.items()}
        halves.append(model.loss(part, {n: rows[n][i] for n, i in kept.items()}))
    assert abs(sum(halves) / 2 - gradients(model, None)["loss"]) > 0.1


def test_a_frozen_tower_gets_no_gradient_and_the_others_all_of_it() -> None:
    model = build()
    model.towers["image"].requires_grad_(False)
    whole, parts = gradients(model, None), gradients(model, 3)
    assert not any(name.startswith("towers.image") for name in parts)
    assert_near(parts, whole)


class Wrapped(nn.Module):
    """A tower and what comes after it."""

    def __init__(self, tower: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.tower, self.after = tower, after
        self.prepare = tower.prepare

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.after(self.tower(features))
        return found


def test_both_passes_have_the_same_dropout() -> None:
    model = build()
    assert not draws(model)
    model.towers["text"] = Wrapped(model.towers["text"], nn.Dropout(0.5))
    assert draws(model)
    before = torch.random.get_rng_state()
    first, second = (gradients(model, 3, active=True) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in first.items():
        assert torch.equal(second[name], value)
    # By finite differences: the gradient is that of the loss which was computed.
    named = {n: p for n, p in model.named_parameters() if "text" in n and p.ndim < 2}
    name, parameter = max(named.items(), key=lambda item: first[item[0]].abs().max())
    index = int(first[name].abs().argmax())
    losses = []
    for sign in (1, -2):
        with torch.no_grad():
            parameter[index] += sign * 5e-3
        losses.append(gradients(model, 3, active=True)["loss"])
    assert (losses[0] - losses[1]) / 1e-2 == pytest.approx(first[name][index].item(), rel=0.02)


def test_running_statistics_count_each_micro_batch_once() -> None:
    model = build()
    model.towers["image"] = Wrapped(model.towers["image"], nn.BatchNorm1d(8).double())
    gradients(model, 4)
    assert int(model.towers["image"].after.num_batches_tracked) == 2


def test_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    config = TrainingConfig(lr=2.0, warmup_steps=4)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.5)
    assert learning_rate(config, 3, 0.0) == pytest.approx(2.0)
    assert learning_rate(config, 9, 0.5) == pytest.approx(1.0)
    assert learning_rate(config, 9, 0.25) == pytest.approx(1 + math.cos(math.pi / 4))
    assert learning_rate(config, 9, 1.0) == pytest.approx(0.0)


def test_exponential_falls_once_an_epoch() -> None:
    config = TrainingConfig(schedule="exponential", gamma=0.96, lr=1e-5, epochs=50, warmup_steps=0)
    for epoch in range(50):
        for share in (0.0, 0.4, 0.99):
            rate = learning_rate(config, 10_000, (epoch + share) / 50)
            assert rate == pytest.approx(1e-5 * 0.96**epoch)


def test_constant_and_warm_up() -> None:
    config = TrainingConfig(schedule="constant", lr=0.1, warmup_steps=10)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.01)
    assert learning_rate(config, 9, 0.5) == pytest.approx(0.1)
    assert learning_rate(config, 900, 1.0) == pytest.approx(0.1)
