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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch

from multimem_ray.design.key_list import sample_name
from multimem_ray.mitigation.policy import ORDINARY, BatchGroup, Policies
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.collectives import world_size
from multimem_ray.models.precision import require_precision
from multimem_ray.models.snapshot import Snapshot
from multimem_ray.run import Run
from multimem_ray.training.checkpoints import CheckpointWriter
from multimem_ray.training.epoch_log import epoch_line
from multimem_ray.training.step import RankBatch, train_step
from multimem_ray.training.stream import TrainingSample, Views
from multimem_ray.training.train_state import TrainState, load_state


@dataclass
class PendingBatch:
    """Samples that wait to make a batch; views are None where another rank has the sample."""

    keys: list[str] = field(default_factory=list)
    views: list[Views | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class Bank:
    """Models that train together.

    Args:
        run: The run.
        model_ids: Which of its models.
        device: Where they train.
        threads: How many models step at the same time on a CPU.
        policies: How their samples are treated; default: all alike.

    Attributes:
        writer: Writes the checkpoints.
        copying_s: Seconds for which models stood still so far, in the mean, to be copied.
    """

    def __init__(
        self,
        run: Run,
        model_ids: Sequence[str],
        device: torch.device,
        threads: int,
        policies: Policies | None = None,
    ) -> None:
        self.run, self.config = run, run.config.training
        require_precision(device, self.config.precision, "training.precision")
        policies, self._lock = policies or Policies(), Lock()
        self.models = [load_state(run, one, device, self._lock, policies) for one in model_ids]
        self._pending = {
            state.id: {group: PendingBatch() for group in state.policy.groups}
            for state in self.models
        }
        self._steps: dict[str, Future[Any]] = {}
        self._last = ""
        # torch.compile does not bear several threads: it took the process down. And ranks must meet
        # in the same order, which threads don't keep.
        alone = device.type != "cpu" or self.config.compile or world_size() > 1
        self._threads = 1 if alone else min(threads, len(self.models))
        self._pool = None if alone else ThreadPoolExecutor(threads)
        self.writer, self.copying_s = CheckpointWriter(device), 0.0

    @property
    def next_epoch(self) -> int:
        """The first epoch that some model still needs."""
        return min(state.epoch for state in self.models)

    @property
    def observes_first(self) -> bool:
        """Whether policies must see the samples before the first epoch; see :meth:`observe`."""
        return any(_observes_first(state) for state in self.models)

    @property
    def can_stop_midway(self) -> bool:
        """Whether an epoch may be resumed in its midst: not while a policy observes all of it."""
        return not any(state.policy.observes for state in self.models)

    def observe(self, samples: Iterable[TrainingSample]) -> None:
        """Let policies see the samples of their models once, without learning from them."""
        observing = [state for state in self.models if _observes_first(state)]
        self._pass(-1, observing, samples)
        for state in observing:
            state.policy.end(-1)

    def train_epoch(
        self,
        number: int,
        samples: Iterable[TrainingSample | tuple[Views | None, Sequence[bool], float]],
        passing: Callable[[int], None] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Train every model that has not done this epoch yet.

        Args:
            number: The epoch.
            samples: Of the epoch; policies other than the default need the key.
            passing: Told, after each sample, how many are behind.

        Returns:
            Model id → history line.

        Raises:
            TrainingError: Training diverged.
        """
        started = time.monotonic()
        active = [state for state in self.models if state.epoch == number]
        self._pass(number, active, samples, passing)
        seconds = time.monotonic() - started
        lines = {}
        for state in active:
            lines[state.id] = epoch_line(state) | state.policy.end(number) | {"seconds": seconds}
            state.next_epoch()
        return lines

    def _pass(
        self,
        number: int,
        states: Sequence[TrainState],
        samples: Iterable[TrainingSample | tuple[Views | None, Sequence[bool], float]],
        passing: Callable[[int], None] | None = None,
    ) -> None:
        """Hand the samples of an epoch to models, and end with all their steps done."""
        progress = 0.0
        for state in states:
            self._settle(state)  # a snapshot may still be taken
            state.policy.begin(number, state.model)
        resumed = [state for state in states if state.passed]
        for place, sample in enumerate(TrainingSample(*item) for item in samples):
            progress, self._last = (number + sample.share) / self.config.epochs, sample.key
            for state in resumed:
                if place == state.passed - 1:
                    state.require_same_stream(sample.key)
            for state in states:
                if sample.members[state.number] and state.needs(place):
                    self._add(state, place, sample, progress)
            if passing is not None:
                passing(place + 1)
        for state in states:
            self._last_steps(state, progress)
        for state in states:
            self._settle(state)

    def _add(self, state: TrainState, place: int, sample: TrainingSample, progress: float) -> None:
        """Put a sample where the model's policy has it; a batch that is full is stepped on."""
        group, views = ORDINARY, sample.views
        name = sample_name(sample.key, sample.shard if state.policy.by_shard else None)
        if views is not None:
            assigned = state.policy.assign(name, views, sample.other_views)
            if assigned is None:
                return
            group, views = assigned
        pending = self._pending[state.id][group]
        pending.places.append(place)
        pending.keys.append(name)
        pending.views.append(views)
        if len(pending.places) == self.config.batch_size:
            self._step(state, group, progress)

    def _last_steps(self, state: TrainState, progress: float) -> None:
        """What is left makes a batch if it is half of one, or all that the model has."""
        for group, pending in self._pending[state.id].items():
            left = len(pending.places)
            fewest = group.fewest
            if fewest is None:
                fewest = 2 if state.seen == 0 else max(2, -(-self.config.batch_size // 2))
            if left >= fewest:
                self._step(state, group, progress)
            self._pending[state.id][group] = PendingBatch()

    def _step(self, state: TrainState, group: BatchGroup, progress: float) -> None:
        pending, self._pending[state.id][group] = self._pending[state.id][group], PendingBatch()
        self._settle(state)
        if group.is_learned:
            state.seen += len(pending.places)
        if self._pool is None:
            self._collated_step(state, group, pending, progress)
        else:
            self._steps[state.id] = self._pool.submit(
                self._collated_step, state, group, pending, progress
            )

    def _collated_step(
        self, state: TrainState, group: BatchGroup, pending: PendingBatch, progress: float
    ) -> None:
        own = [(i, views) for i, views in enumerate(pending.views) if views is not None]
        places = [i for i, _ in own]
        keys = [pending.keys[i] for i in places]
        batch = Batch.of([views for _, views in own])
        state.await_copy()
        if group.is_learned:
            part = RankBatch(batch, keys, places, len(pending.places))
            train_step(state, self.config, part, progress, group.noise)
        else:
            state.policy.embed(keys, batch.to(state.device), state.model)

    def _settle(self, state: TrainState) -> None:
        """Wait for the step or snapshot that is under way; raises what it raised."""
        if (step := self._steps.pop(state.id, None)) is not None:
            step.result()

    def needs(self, epoch: int, place: int, members: Sequence[bool]) -> bool:
        """Whether a sample of the epoch's stream is needed: none is that was used before a stop."""
        return any(
            members[state.number] and state.needs(place)
            for state in self.models
            if state.epoch == epoch
        )

    def checkpoint(self, epoch: int | None = None, passed: int = 0) -> None:
        """Write the place of every model, so that another process can go on from here.

        It is complete when this returns; see :meth:`begin_checkpoint`.
        """
        self.begin_checkpoint(epoch, passed)
        self.writer.wait()

    def begin_checkpoint(
        self,
        epoch: int | None = None,
        passed: int = 0,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        """Have the place of every model written while training goes on.

        Waits for a checkpoint that is under way.

        Args:
            epoch: That is under way; None between two epochs.
            passed: Samples of its stream that are behind.
            first: Done in the writing thread, before anything is written.

        Raises:
            StorageError: The last checkpoint could not be written.
        """
        self.writer.prepare(self.models)
        self.writer.wait()
        parts = []
        for state in self.models:
            place: tuple[list[int], int, str] = [], 0, ""
            if state.epoch == epoch:
                pending = self._pending[state.id].values()
                waiting = [place for group in pending for place in group.places]
                place = waiting, passed, self._last
            parts.append((state, self._snapshot(state, place)))
        self.writer.write(parts, first)

    def _snapshot(self, state: TrainState, place: tuple[list[int], int, str]) -> Future[Snapshot]:
        """A snapshot of a model after the step that is under way, before its next one."""
        step = self._steps.pop(state.id, None)

        def take() -> Snapshot:
            if step is not None:
                step.result()  # in the pool before this, and so never behind it
            started = time.monotonic()
            snapshot = state.snapshot(*place, self.writer.memory(state), self.writer.stream)
            with self._lock:
                self.copying_s += (time.monotonic() - started) / self._threads
            return snapshot

        taken: Future[Snapshot] = Future()
        if self._pool is None:
            taken.set_result(take())
        else:
            self._steps[state.id] = taken = self._pool.submit(take)
        return taken

    def finish(self) -> None:
        """Write the finished models."""
        self.writer.wait()
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
        for state in self.models:
            membership = {
                "model": state.id,
                "number": state.number,
                "design": self.run.design.describe(),
                "held_out": config.held_out.model_dump(mode="json"),
                "group": config.design.group,
                "fields": dict(self.run.fields),
            }
            for name, content in state.policy.files().items():
                state.folder.storage.write_atomic(state.folder.path(name), content)
            state.folder.finish(state.model, built_from, membership)


def _observes_first(state: TrainState) -> bool:
    # What a policy chose is in the checkpoint.
    return state.policy.observes_first and (state.epoch, state.step) == (0, 0)
