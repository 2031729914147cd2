"""A bank: several reference models that train on one pass over the data.

Each decoded sample is handed to every model that may train on it; a model takes a step whenever
it has a batch of its own. So its batches, and therefore its weights, are those it would have had
alone, whatever else is in the bank. On the CPU the models step side by side in threads, one
core each: operators over several threads add in another order, and results would depend on the
number of cores.

Where several ranks train a bank, each steps on its part of every batch and tells the others its
embeddings and gradients: the steps are those of one rank, for towers that treat samples one by
one. Batch norm does not: its statistics are those of a rank's part (torch has none for several
processes on a CPU), and the running ones that are written are the first rank's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch

from multimem_ray.design.hashing import seed_of
from multimem_ray.models.contrastive import build_model, channels_last, compiled
from multimem_ray.models.gather import world_size
from multimem_ray.models.precision import require_precision
from multimem_ray.run import Run
from multimem_ray.training.optimizer import build_optimizer
from multimem_ray.training.reference import ReferenceModel, Slice, Views


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
        require_precision(device, self.config.precision, "training.precision")
        self._lock = Lock()
        numbers = {model_id: i for i, model_id in enumerate(run.design.model_ids())}
        self.models = [self._load(model_id, numbers[model_id], device) for model_id in model_ids]
        # torch.compile does not bear several threads: it took the process down. And ranks must meet
        # in the same order, which threads don't keep.
        alone = device.type != "cpu" or self.config.compile or world_size() > 1
        self._pool = None if alone else ThreadPoolExecutor(threads)

    def _load(self, model_id: str, number: int, device: torch.device) -> ReferenceModel:
        seed = seed_of(self.config.seed, "init", number) % (1 << 63)
        run = self.run
        model = build_model(run.config.model, run.decoder.modalities, seed, storage=run.storage).to(
            device
        )
        model.precision = self.config.precision
        # Tensor cores want it too; in fp32, GPUs gain little.
        if device.type == "cpu" or model.precision != "fp32":
            model = channels_last(model)
        if self.config.compile:
            model = compiled(model)
        optimizer = build_optimizer(model, self.config)
        reference = ReferenceModel(
            model_id, number, model, optimizer, run.model_folder(model_id), self.config, self._lock
        )
        reference.resume()
        return reference

    @property
    def next_epoch(self) -> int:
        """The first epoch that some model still needs."""
        return min(model.progress.epoch for model in self.models)

    def train_epoch(
        self, number: int, samples: Iterable[tuple[Views | None, Sequence[bool], float]]
    ) -> dict[str, dict[str, Any]]:
        """Train every model that has not done this epoch yet.

        Args:
            number: The epoch.
            samples: (views, membership in each model of the run, share of the epoch done); without
                views where another rank has them.

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
            self._collated_step(model, views, progress)
        else:
            model.pending = self._pool.submit(self._collated_step, model, views, progress)

    def _collated_step(
        self, model: ReferenceModel, views: Sequence[Views | None], progress: float
    ) -> None:
        here = [(place, view) for place, view in enumerate(views) if view is not None]
        batch = self.run.decoder.collate([view for _, view in here])
        model.step(batch, progress, Slice([place for place, _ in here], len(views)))

    def checkpoint(self) -> None:
        """Write the place of every model, so that another process can go on from here."""
        for model in self.models:
            model.save()

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
