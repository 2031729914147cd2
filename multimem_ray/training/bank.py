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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from multimem_ray.design.hashing import seed_of
from multimem_ray.mitigation.policy import CHOSEN, LEFT_OUT, PLAIN, REGROUPED, SamplePolicy
from multimem_ray.mitigation.reference_scores import ReferenceScores
from multimem_ray.models.build import build_model
from multimem_ray.models.checkpoint import Progress
from multimem_ray.models.collectives import world_size
from multimem_ray.models.contrastive import ContrastiveModel, channels_last, compiled
from multimem_ray.models.precision import require_precision
from multimem_ray.run import Run
from multimem_ray.training.optimizer import build_optimizer
from multimem_ray.training.prepared import TrainingSample, Views
from multimem_ray.training.train_state import Slice, TrainState


class Bank:
    """Models that train together.

    Args:
        run: The run.
        model_ids: Which of its models.
        device: Where they train.
        threads: How many models step at the same time on a CPU.
        held_out_means: Mean embeddings (n, d) of held-out samples under a model; needed by a
            mitigation that compares the running model with references.
    """

    def __init__(
        self,
        run: Run,
        model_ids: Sequence[str],
        device: torch.device,
        threads: int,
        held_out_means: Callable[[ContrastiveModel], Tensor] | None = None,
    ) -> None:
        self.run = run
        self.config, self._mitigation = run.config.training, run.config.mitigation
        self._held_out_means = held_out_means
        self._judged = None if self._mitigation.kind == "none" else ReferenceScores.load(run)
        require_precision(device, self.config.precision, "training.precision")
        self._lock, self._last = Lock(), ""
        numbers = {model_id: i for i, model_id in enumerate(run.design.model_ids())}
        self.models = [self._load(model_id, numbers[model_id], device) for model_id in model_ids]
        # torch.compile does not bear several threads: it took the process down. And ranks must meet
        # in the same order, which threads don't keep.
        alone = device.type != "cpu" or self.config.compile or world_size() > 1
        self._pool = None if alone else ThreadPoolExecutor(threads)

    def _load(self, model_id: str, number: int, device: torch.device) -> TrainState:
        seed = seed_of(self.config.seed, "init", number) % (1 << 63)
        run = self.run
        config = run.model_config(model_id)
        model = build_model(config, run.decoder.modalities, seed, storage=run.storage).to(device)
        model.precision = self.config.precision
        # Tensor cores want it too; in fp32, GPUs gain little.
        if device.type == "cpu" or model.precision != "fp32":
            model = channels_last(model)
        if self.config.compile:
            model = compiled(model)
        optimizer = build_optimizer(model, self.config)
        reference = TrainState(
            model_id, number, model, optimizer, run.model_folder(model_id), self.config, self._lock
        )
        if self._judged is not None:
            reference.regrouping = SamplePolicy(
                self._mitigation, self._judged, run.modalities, number
            )
        reference.resume()
        return reference

    @property
    def next_epoch(self) -> int:
        """The first epoch that some model still needs."""
        return min(model.progress.epoch for model in self.models)

    def train_epoch(
        self,
        number: int,
        samples: Iterable[TrainingSample | tuple[Views | None, Sequence[bool], float]],
        passing: Callable[[int], None] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Train every model that has not done this epoch yet.

        Args:
            number: The epoch.
            samples: See :class:`Prepared`; the key is needed for a mitigation only.
            passing: Told, after each sample, how many are behind.

        Returns:
            Model id → history line.
        """
        started = time.monotonic()
        active = [model for model in self.models if model.progress.epoch == number]
        share = 0.0
        for model in active:
            self._begin(model, number)
        stopped = [model for model in active if model.passed]
        for place, sample in enumerate(TrainingSample(*item) for item in samples):
            share, self._last = sample.share, sample.key
            for model in stopped:
                if place == model.passed - 1:
                    model.require_same_stream(sample.key)
            for model in active:
                if sample.members[model.number] and model.wants(place):
                    self._take(model, place, sample, (number + share) / self.config.epochs)
            if passing is not None:
                passing(place + 1)
        for model in active:
            self._last_steps(model, (number + share) / self.config.epochs)
        seconds = time.monotonic() - started
        return {model.id: {**model.close_epoch(), "seconds": seconds} for model in active}

    @property
    def must_look(self) -> bool:
        """Whether models choose, before the first epoch, by what they make of their samples."""
        return any(self._must_look(model) for model in self.models)

    def look(self, samples: Iterable[TrainingSample]) -> None:
        """Let those models see their samples once, without learning from them."""
        looking = [model for model in self.models if self._must_look(model)]
        for model in looking:
            self._begin(model, -1)
        for place, sample in enumerate(samples):
            for model in looking:
                if sample.members[model.number]:
                    self._put(model, LEFT_OUT, place, sample, sample.views, 0.0)
        for model in looking:
            self._last_steps(model, 0.0)
            model.settle()
            if model.regrouping is not None:
                model.regrouping.end(-1)

    def _must_look(self, model: TrainState) -> bool:
        # What it chose is in its checkpoint.
        return model.regrouping is not None and (
            model.regrouping.watches(-1) and model.progress == Progress(0, 0)
        )

    def _begin(self, model: TrainState, epoch: int) -> None:
        regrouping = model.regrouping
        if regrouping is None:
            return
        regrouping.begin(epoch)
        if regrouping.needs_means(epoch) and self._held_out_means is not None:
            started = time.perf_counter()
            regrouping.means = self._held_out_means(model.model)
            regrouping.seconds += time.perf_counter() - started

    def _take(self, model: TrainState, place: int, sample: TrainingSample, progress: float) -> None:
        lane, views = PLAIN, sample.views
        if model.regrouping is not None and views is not None:
            lane, views = model.regrouping.lane(sample.key, views, sample.stronger)
        if lane != LEFT_OUT or (model.regrouping is not None and model.regrouping.watching):
            self._put(model, lane, place, sample, views, progress)

    def _put(
        self,
        model: TrainState,
        lane: str,
        place: int,
        sample: TrainingSample,
        views: Views | None,
        progress: float,
    ) -> None:
        model.lanes[lane].add(place, sample.key, views)
        if len(model.lanes[lane]) == self.config.batch_size:
            self._step(model, lane, progress)

    def _last_steps(self, model: TrainState, progress: float) -> None:
        """What is left makes a batch if it is half of one, or all that the model has.

        Regrouped samples are few: two of them suffice.
        """
        for lane in (PLAIN, REGROUPED, LEFT_OUT):
            left = len(model.lanes[lane])
            enough = 2 * left >= self.config.batch_size or model.seen == 0
            if (left and lane == LEFT_OUT) or (left >= 2 and (enough or lane == REGROUPED)):
                self._step(model, lane, progress)
            model.lanes[lane].take()

    def _step(self, model: TrainState, lane: str, progress: float) -> None:
        keys, views = model.lanes[lane].take()
        if lane != LEFT_OUT:
            model.seen += len(views)
        model.settle()
        if self._pool is None:
            self._collated_step(model, lane, keys, views, progress)
        else:
            model.pending = self._pool.submit(
                self._collated_step, model, lane, keys, views, progress
            )

    def _collated_step(
        self,
        model: TrainState,
        lane: str,
        keys: Sequence[str],
        views: Sequence[Views | None],
        progress: float,
    ) -> None:
        here = [(place, view) for place, view in enumerate(views) if view is not None]
        batch = self.run.decoder.collate([view for _, view in here])
        if lane == LEFT_OUT:
            model.look(batch, keys)
            return
        place = Slice([place for place, _ in here], len(views))
        noise = self._mitigation.noise if lane == REGROUPED else 0.0
        model.step(batch, progress, place, keys=keys, noise=noise)

    def wants(self, epoch: int, place: int, members: Sequence[bool]) -> bool:
        """Whether a sample of the epoch's stream is needed: none is that was used before a stop."""
        return any(
            members[model.number] and model.wants(place)
            for model in self.models
            if model.progress.epoch == epoch
        )

    def checkpoint(self, epoch: int | None = None, passed: int = 0) -> None:
        """Write the place of every model, so that another process can go on from here.

        Args:
            epoch: That is under way; None between two epochs.
            passed: Samples of its stream that are behind.
        """
        for model in self.models:
            if model.progress.epoch == epoch:
                model.save(passed, self._last)
            else:
                model.save()

    @property
    def can_stop_midway(self) -> bool:
        """Whether an epoch may be resumed in its midst: not while a mitigation watches it all."""
        return not any(m.regrouping is not None and m.regrouping.watching for m in self.models)

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
            "mitigation": config.mitigation.model_dump(mode="json"),
        }
        for model in self.models:
            membership = {
                "model": model.id,
                "number": model.number,
                "design": self.run.design.describe(),
                "held_out": config.held_out.model_dump(mode="json"),
                "group": config.design.group,
            }
            if model.regrouping is not None:
                self.run.storage.write_atomic(
                    model.folder.path(CHOSEN), model.regrouping.as_parquet()
                )
            model.folder.finish(model.model, built_from, membership)
