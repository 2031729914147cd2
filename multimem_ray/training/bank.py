"""A bank: several reference models that train on one pass over the data.

Each decoded sample is handed to every model that may train on it; a model takes a step whenever
it has a batch of its own. So its batches, and therefore its weights, are those it would have had
alone, whatever else is in the bank. On the CPU the models step side by side in threads, one
core each: operators over several threads add in another order, and results would depend on the
number of cores.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from multimem_ray.config import TrainingConfig
from multimem_ray.design.hashing import seed_of
from multimem_ray.errors import TrainingError
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.checkpoint import ModelFolder, Progress
from multimem_ray.models.contrastive import ContrastiveModel, build_model, channels_last
from multimem_ray.run import Run

Views = Mapping[str, Array]


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


@dataclass
class ReferenceModel:
    """One model of a bank: weights, optimizer, its place, and the batch it is collecting."""

    id: str
    number: int
    model: ContrastiveModel
    optimizer: torch.optim.Optimizer
    folder: ModelFolder
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    waiting: list[Views] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    seen: int = 0
    pending: Future[None] | None = None

    def step(self, batch: Batch, config: TrainingConfig, progress: float) -> None:
        """One optimizer step."""
        rate = learning_rate(config, self.progress.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(self.model.log_scales.device)
        loss = self.model.loss(self.model.prepare(batch.values), batch.rows)
        self.optimizer.zero_grad(set_to_none=True)
        # Where everything is frozen, the loss is all there is to learn.
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            self.optimizer.step()
        self.losses.append(loss.detach())
        self.progress = Progress(self.progress.epoch, self.progress.step + 1)

    def settle(self) -> None:
        """Wait for the step that is under way; raises what it raised."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def close_epoch(self) -> dict[str, Any]:
        """Mean loss of the epoch, after making sure that it is a number.

        Raises:
            TrainingError: Training diverged; names the model and the step.
        """
        self.settle()
        losses = torch.stack(self.losses).float().cpu() if self.losses else torch.zeros(0)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            step = self.progress.step - len(losses) + int(bad[0])
            raise TrainingError(
                f"model {self.id}: the loss is {losses[bad[0]].item()} at step {step} (epoch "
                f"{self.progress.epoch}); lower training.lr or set training.clip_norm"
            )
        line = {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "loss": float(losses.mean()) if len(losses) else None,
            "lr": self.optimizer.param_groups[0]["lr"],
            "samples": self.seen,
        }
        self.losses, self.seen = [], 0
        self.progress = Progress(self.progress.epoch + 1, self.progress.step)
        return line


class Bank:
    """Models that train together.

    Args:
        run: The run.
        model_ids: Which of its models.
        device: Where they train.
        threads: How many models step at the same time on a CPU.
    """

    def __init__(
        self, run: Run, model_ids: Sequence[str], device: torch.device, threads: int
    ) -> None:
        self.run = run
        self.config = run.config.training
        numbers = {model_id: i for i, model_id in enumerate(run.design.model_ids())}
        self.models = [self._load(model_id, numbers[model_id], device) for model_id in model_ids]
        self._pool = ThreadPoolExecutor(threads) if device.type == "cpu" else None

    def _load(self, model_id: str, number: int, device: torch.device) -> ReferenceModel:
        seed = seed_of(self.config.seed, "init", number) % (1 << 63)
        run = self.run
        model = build_model(run.config.model, run.decoder.modalities, seed, storage=run.storage).to(
            device
        )
        if device.type == "cpu":
            model = channels_last(model)
        optimizer = build_optimizer(model, self.config)
        folder = self.run.model_folder(model_id)
        reference = ReferenceModel(model_id, number, model, optimizer, folder)
        progress = folder.load_progress(model, optimizer)
        if progress is not None:
            reference.progress = progress
        return reference

    @property
    def next_epoch(self) -> int:
        """The first epoch that some model still needs."""
        return min(model.progress.epoch for model in self.models)

    def train_epoch(
        self, number: int, samples: Iterable[tuple[Views, Sequence[bool], float]]
    ) -> dict[str, dict[str, Any]]:
        """Train every model that has not done this epoch yet.

        Args:
            number: The epoch.
            samples: (views, membership in each model of the run, share of the epoch done).

        Returns:
            Model id → history line.
        """
        started = time.monotonic()
        active = [model for model in self.models if model.progress.epoch == number]
        share = 0.0
        for views, members, share in samples:
            for model in active:
                if members[model.number]:
                    model.waiting.append(views)
                    if len(model.waiting) == self.config.batch_size:
                        self._step(model, (number + share) / self.config.epochs)
        for model in active:
            self._last_step(model, (number + share) / self.config.epochs)
        seconds = time.monotonic() - started
        return {model.id: {**model.close_epoch(), "seconds": seconds} for model in active}

    def _last_step(self, model: ReferenceModel, progress: float) -> None:
        """What is left makes a batch if it is half of one, or all that the model has."""
        left = len(model.waiting)
        if left >= 2 and (2 * left >= self.config.batch_size or model.seen == 0):
            self._step(model, progress)
        model.waiting = []

    def _step(self, model: ReferenceModel, progress: float) -> None:
        views, model.waiting = model.waiting, []
        model.seen += len(views)
        model.settle()
        if self._pool is None:
            model.step(self.run.decoder.collate(views), self.config, progress)
        else:
            model.pending = self._pool.submit(self._collated_step, model, views, progress)

    def _collated_step(self, model: ReferenceModel, views: list[Views], progress: float) -> None:
        model.step(self.run.decoder.collate(views), self.config, progress)

    def checkpoint(self) -> None:
        """Write the place of every model, so that another process can go on from here."""
        for model in self.models:
            model.folder.save_progress(model.model, model.optimizer, model.progress)

    def finish(self) -> None:
        """Write the finished models."""
        config = self.run.config
        built_from = {
            "model": config.model.model_dump(mode="json"),
            "modalities": list(self.run.modalities),
            "modality_settings": {
                m.name: m.settings.model_dump(mode="json") for m in self.run.decoder.modalities
            },
            "training": config.training.model_dump(mode="json"),
        }
        for model in self.models:
            membership = {
                "model": model.id,
                "number": model.number,
                "design": self.run.design.describe(),
                "held_out": config.held_out.model_dump(mode="json"),
                "group": config.design.group,
            }
            model.folder.finish(model.model, built_from, membership)
