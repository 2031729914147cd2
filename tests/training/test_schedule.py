"""Learning rates and optimizers that the presets ask for."""

from __future__ import annotations

import pytest
import torch

from multimem_ray.config import ModelConfig, TrainingConfig
from multimem_ray.modalities import registry
from multimem_ray.models.build import build_model
from multimem_ray.training.optimizer import build_optimizer, learning_rate


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


def test_optimizers_are_as_configured() -> None:
    model = build_model(ModelConfig(), [registry.create("image"), registry.create("text")], 0)
    sgd = build_optimizer(model, TrainingConfig(optimizer="sgd", momentum=0.8, weight_decay=5e-4))
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["nesterov"], group["momentum"], group["weight_decay"]) == (True, 0.8, 5e-4)
    assert sgd.param_groups[1]["weight_decay"] == 0.0
    adamw = build_optimizer(model, TrainingConfig(betas=(0.9, 0.98), eps=1e-6))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.98)
    assert adamw.param_groups[0]["eps"] == 1e-6
    assert sum(len(g["params"]) for g in sgd.param_groups) == len(list(model.parameters()))
