"""A reference model in training: its steps, what it collects for the next one, its checkpoint."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from multimem_ray.config import TrainingConfig
from multimem_ray.design.hashing import seed_of
from multimem_ray.errors import TrainingError
from multimem_ray.mitigation.policy import SamplePolicy
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.checkpoint import Midway, ModelFolder, Progress
from multimem_ray.models.collectives import average_gradients, rank
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.models.noise import add_noise, unit_noise
from multimem_ray.models.randomness import SeededDropout, draws
from multimem_ray.training.gradients import Embeddings, backward
from multimem_ray.training.optimizer import learning_rate

logger = logging.getLogger(__name__)

Views = Mapping[str, Array]

# Thirty halvings of the loss scale below where it starts: gradients that are still not finite
# are not too large for fp16, they are no numbers.
_LEAST_LOSS_SCALE = 2.0**-14
_NONE = torch.zeros(0, dtype=torch.bool)


@dataclass(frozen=True)
class Slice:
    """What one rank has of a batch.

    Args:
        places: Positions of its samples in the whole batch, ascending.
        size: Number of samples in the whole batch.
    """

    places: Sequence[int]
    size: int


@dataclass
class PendingBatch:
    """Samples that wait to make a batch."""

    keys: list[str] = field(default_factory=list)
    views: list[Views | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.views)

    def add(self, place: int, key: str, views: Views | None) -> None:
        """One more, from this place of the epoch's stream."""
        self.places.append(place)
        self.keys.append(key)
        self.views.append(views)

    def take(self) -> tuple[list[str], list[Views | None]]:
        """All of them; the lane is empty then."""
        taken = self.keys, self.views
        self.keys, self.views, self.places = [], [], []
        return taken


@dataclass
class TrainState:
    """One model of a bank: weights, optimizer, its place, and the batch it is collecting."""

    id: str
    number: int
    model: ContrastiveModel
    optimizer: torch.optim.Optimizer
    folder: ModelFolder
    config: TrainingConfig
    lock: Lock
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    regrouping: SamplePolicy | None = None
    lanes: dict[str, PendingBatch] = field(default_factory=lambda: defaultdict(PendingBatch))
    losses: list[Tensor] = field(default_factory=list)
    skipped: list[Tensor] = field(default_factory=list)
    seen: int = 0
    pending: Future[None] | None = None
    passed: int = 0
    last: str = ""
    resumed: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.device = self.model.log_scales.device
        # Without fp16 the scaler hands everything through as it is.
        self.scaler = GradScaler(self.device.type, enabled=self.config.precision == "fp16")
        self.chance = SeededDropout(draws(self.model), self.device, self.lock)

    def step(
        self,
        batch: Batch,
        progress: float,
        slice_: Slice | None = None,
        *,
        keys: Sequence[str] = (),
        noise: float = 0.0,
    ) -> None:
        """One optimizer step.

        Args:
            batch: What the model trains on; on several ranks, what this one has of it.
            progress: Share of the whole training that is done, 0 to 1.
            slice_: Where that lies in the whole batch; default: it is the whole batch.
            keys: Of its samples; needed by a mitigation that watches them.
            noise: Amount that is put on all embeddings, beside ``training.noise``.
        """
        rate = learning_rate(self.config, self.progress.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = backward(
            self.model,
            self.model.prepare(batch.values),
            batch.rows,
            micro_batch=self.config.micro_batch,
            change=partial(self._changed, batch=batch, slice_=slice_, keys=keys, extra=noise),
            chance=partial(self.chance.of, "dropout", rank(), *self._place()),
            scale=self.scaler.scale,
        )
        average_gradients(self.model.parameters())
        skipped = self._update()
        self.losses.append(loss)
        self.skipped.append(skipped)
        self.progress = Progress(self.progress.epoch, self.progress.step + 1)

    @torch.no_grad()
    def look(self, batch: Batch, keys: Sequence[str]) -> None:
        """Embed samples for the choice of a mitigation, without learning from them."""
        if self.regrouping is None:
            return
        batch = batch.to(self.device)
        started = time.perf_counter()
        training = self.model.training
        self.model.eval()
        try:
            embedded = self.model.embed(self.model.prepare(batch.values))
        finally:
            self.model.train(training)
        self.regrouping.seconds += time.perf_counter() - started
        self.regrouping.watch(keys, embedded, batch.rows, self.model)

    def _changed(
        self,
        embeddings: Embeddings,
        *,
        batch: Batch,
        slice_: Slice | None,
        keys: Sequence[str],
        extra: float,
    ) -> Embeddings:
        """Embeddings as the loss sees them."""
        if self.regrouping is not None and self.regrouping.watching:
            self.regrouping.watch(keys, embeddings, batch.rows, self.model)
        noisy = self._with_noise(embeddings, batch, slice_)
        return self._with_more_noise(noisy, batch, extra) if extra else noisy

    def _with_more_noise(
        self, embeddings: Embeddings, batch: Batch, amount: float
    ) -> dict[str, Tensor]:
        found = {}
        for name, embedded in embeddings.items():
            seed = seed_of("regrouped noise", *self._place(), name)
            noise = unit_noise(batch.size, self.model.dim, seed, self.device)
            found[name] = add_noise(embedded, noise[batch.rows[name]], amount)
        return found

    def _place(self) -> tuple[int, int, int]:
        """What the random numbers of a step follow from."""
        return self.config.seed, self.number, self.progress.step

    def _with_noise(self, embeddings: Embeddings, batch: Batch, slice_: Slice | None) -> Embeddings:
        """Embeddings with the configured noise; a sample's follows from its place in the batch."""
        found = dict(embeddings)
        size = batch.size if slice_ is None else slice_.size
        for name, amount in self.config.noise.items():
            if name in found and amount:
                seed = seed_of("noise", *self._place(), name)
                noise = unit_noise(size, self.model.dim, seed, self.device)
                rows = batch.rows[name]
                if slice_ is not None:
                    rows = torch.tensor(slice_.places, device=self.device)[rows]
                found[name] = add_noise(found[name], noise[rows], amount)
        return found

    def _update(self) -> Tensor:
        """Take the step that the gradients ask for; true if fp16 could not hold them."""
        skipped = torch.zeros((), dtype=torch.bool)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not gradients:
            return skipped
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
            skipped = ~torch.isfinite(torch.nn.utils.get_total_norm(gradients))
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return skipped

    def settle(self) -> None:
        """Wait for the step that is under way; raises what it raised."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def close_epoch(self) -> dict[str, Any]:
        """The epoch's line of the history, after making sure that its loss is a number.

        In fp16 a step whose gradients overflow is skipped and the next one is scaled down; such
        steps are counted and are no divergence, unless scaling down has stopped helping.

        Raises:
            TrainingError: Training diverged; names the model and the step.
        """
        self.settle()
        losses = torch.stack(self.losses).float().cpu() if self.losses else torch.zeros(0)
        finite = torch.isfinite(losses)
        skipped = torch.stack([s.cpu() for s in self.skipped]) if self.skipped else finite
        self._require_convergence(losses, finite | skipped)
        losses = losses[finite]
        line = {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "loss": float(losses.mean()) if len(losses) else None,
            "lr": self.optimizer.param_groups[0]["lr"],
            "samples": self.seen,
        }
        if self.scaler.is_enabled():
            line["skipped_steps"] = int(skipped.sum())
        if self.regrouping is not None:
            self.regrouping.end(self.progress.epoch)
            line["chosen"] = len(self.regrouping.chosen)
            line["mitigation_s"], self.regrouping.seconds = self.regrouping.seconds, 0.0
        self.losses, self.skipped, self.seen = [], [], 0
        self.passed, self.last, self.resumed = 0, "", frozenset()
        self.progress = Progress(self.progress.epoch + 1, self.progress.step)
        return line

    def _require_convergence(self, losses: Tensor, sound: Tensor) -> None:
        bad = (~sound).nonzero()
        if len(bad):
            step = self.progress.step - len(losses) + int(bad[0])
            raise TrainingError(
                f"model {self.id}: the loss is {losses[bad[0]].item()} at step {step} (epoch "
                f"{self.progress.epoch}); lower training.lr or set training.clip_norm"
            )
        if self.scaler.is_enabled() and self.scaler.get_scale() < _LEAST_LOSS_SCALE:
            raise TrainingError(
                f"model {self.id}: gradients are not finite in fp16, however far the loss is "
                f"scaled down, at step {self.progress.step} (epoch {self.progress.epoch}); set "
                "training.precision to bf16, or lower training.lr"
            )

    def wants(self, place: int) -> bool:
        """Whether a sample of the epoch's stream has not been in a batch before resumption."""
        return place >= self.passed or place in self.resumed

    def require_same_stream(self, key: str) -> None:
        """Warn if the last sample before a stop is another one now that it comes by again."""
        if key != self.last:
            logger.warning(
                "model %s: sample %s of epoch %d was %s before training stopped and is %s now; was "
                "a shard read incompletely? Some samples of this epoch count twice or not at all",
                self.id,
                f"{self.passed:,}",
                self.progress.epoch,
                self.last,
                key,
            )

    def save(self, passed: int = 0, last: str = "") -> None:
        """Write a checkpoint.

        Args:
            passed: Samples of the epoch's stream that are behind, where it is not over.
            last: Key of the last of them.
        """
        self.settle()
        progress = self.progress
        if passed or self.passed:
            last = last if passed > self.passed else self.last
            progress = replace(progress, midway=self._midway(max(passed, self.passed), last))
        if self.scaler.is_enabled():
            state = self.scaler.state_dict()
            scale = (float(state["scale"]), int(state["_growth_tracker"]))
            progress = replace(progress, loss_scale=scale)
        if self.regrouping is not None:
            progress = replace(progress, chosen=self.regrouping.state())
        self.folder.save_progress(self.model, self.optimizer, progress)

    def _midway(self, passed: int, last: str) -> Midway:
        waiting = {place for lane in self.lanes.values() for place in lane.places}
        # What waited when training was resumed, and has not come by again yet.
        waiting |= {place for place in self.resumed if place >= passed or passed == self.passed}
        return Midway(
            passed,
            self.seen,
            last,
            torch.tensor(sorted(waiting), dtype=torch.int64),
            torch.stack(self.losses).float().cpu() if self.losses else torch.zeros(0),
            torch.stack([s.cpu() for s in self.skipped]) if self.skipped else _NONE,
        )

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        progress = self.folder.load_progress(self.model, self.optimizer)
        if progress is None:
            return
        if progress.loss_scale is not None and self.scaler.is_enabled():
            scale, since = progress.loss_scale
            state = self.scaler.state_dict() | {"scale": scale, "_growth_tracker": since}
            self.scaler.load_state_dict(state)
        if progress.chosen is not None and self.regrouping is not None:
            self.regrouping.load(progress.chosen)
        midway = progress.midway
        if midway is not None:
            self.passed, self.seen, self.last = midway.passed, midway.seen, midway.last
            self.resumed = frozenset(midway.waiting.tolist())
            self.losses = list(midway.losses.to(self.device))
            self.skipped = list(midway.skipped)
        self.progress = replace(progress, loss_scale=None, chosen=None, midway=None)
