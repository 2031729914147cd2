"""Learning rates and optimizers, as the presets and the user ask for them."""

from __future__ import annotations

import math

import torch

from multimem_ray.config import TrainingConfig
from multimem_ray.models.contrastive import ContrastiveModel


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, times the schedule over the whole training.

    Args:
        step: Steps taken, from 0.
        progress: Share of the whole training that is done, 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    elif config.schedule == "exponential":
        # The share of an epoch that is done may be a rounding error below a whole number.
        factor = config.gamma ** math.floor(progress * config.epochs + 1e-9)
    else:
        factor = 1.0
    return config.lr * warm * factor


def build_optimizer(model: ContrastiveModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW or SGD without decay on vectors and scalars (biases, norms, logit scales)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=True, fused=True
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
