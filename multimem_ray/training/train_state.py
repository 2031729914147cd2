"""A reference model in training: weights, optimizer, counters, and how they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from multimem_ray.config import TrainingConfig
from multimem_ray.design.hashing import seed_of
from multimem_ray.mitigation.policy import Policies, SamplePolicy
from multimem_ray.models.build import build_model
from multimem_ray.models.checkpoint import Midway, ModelFolder, Progress
from multimem_ray.models.contrastive import ContrastiveModel, channels_last, compiled
from multimem_ray.models.randomness import SeededDropout, draws
from multimem_ray.models.snapshot import Snapshot
from multimem_ray.run import Run

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """One model in training.

    Args:
        id: Its id.
        number: Its place in the design; what is random of it follows from that.
        model: The model, on its device.
        optimizer: Of its parameters.
        scaler: Of the loss, for fp16; else it hands everything through as it is.
        dropout: The random numbers that its towers draw.
        folder: Where it is kept.
        policy: How its samples are treated.

    Attributes:
        epoch: Epochs done.
        step: Optimizer steps taken.
        losses: Of each step of this epoch.
        skipped: Whether each of them was skipped, in fp16.
        seen: Samples in the batches of this epoch.
        passed: Samples of this epoch's stream that were behind when training stopped in its midst.
        last: Key of the last of them.
        waited: Places of those of them that were in no batch yet.
        copied: On a GPU, happens when the last snapshot is complete: no step may come before it.
    """

    id: str
    number: int
    model: ContrastiveModel
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    dropout: SeededDropout
    folder: ModelFolder
    policy: SamplePolicy = field(default_factory=SamplePolicy)
    epoch: int = 0
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    skipped: list[Tensor] = field(default_factory=list)
    seen: int = 0
    passed: int = 0
    last: str = ""
    waited: frozenset[int] = frozenset()
    copied: torch.cuda.Event | None = None

    @property
    def device(self) -> torch.device:
        return self.model.log_scales.device

    def needs(self, place: int) -> bool:
        """Whether a sample of the epoch's stream was in no batch before training stopped."""
        return place >= self.passed or place in self.waited

    def require_same_stream(self, key: str) -> None:
        """Warn if the last sample before a stop is another one now that it comes by again."""
        if key != self.last:
            logger.warning(
                "model %s: sample %s of epoch %d was %s before training stopped and is %s now; was "
                "a shard read incompletely? Some samples of this epoch count twice or not at all",
                self.id,
                f"{self.passed:,}",
                self.epoch,
                self.last,
                key,
            )

    def next_epoch(self) -> None:
        """One epoch more is done."""
        self.epoch += 1
        self.losses, self.skipped, self.seen = [], [], 0
        self.passed, self.last, self.waited = 0, "", frozenset()

    def save(self, waiting: Iterable[int] = (), passed: int = 0, last: str = "") -> None:
        """Write a checkpoint; no step may be under way; see :meth:`snapshot`."""
        self.folder.write_progress(self.snapshot(waiting, passed, last))

    def snapshot(
        self,
        waiting: Iterable[int] = (),
        passed: int = 0,
        last: str = "",
        memory: Tensor | None = None,
        stream: torch.cuda.Stream | None = None,
    ) -> Snapshot:
        """A copy of all that a checkpoint holds, to be written while training goes on.

        No step may be under way; on a GPU, the next one must come after :meth:`await_copy`.

        Args:
            waiting: Places of samples that wait for a batch.
            passed: Samples of the epoch's stream that are behind, where it is not over.
            last: Key of the last of them.
            memory: Where the copy shall lie; see :meth:`Snapshot.of`.
            stream: Of a GPU, which copies when it has done what it was told so far.
        """
        scale = None
        if self.scaler.is_enabled():
            state = self.scaler.state_dict()
            scale = (float(state["scale"]), int(state["_growth_tracker"]))
        midway = self._midway(waiting, passed, last) if passed or self.passed else None
        progress = Progress(self.epoch, self.step, scale, self.policy.state(), midway)
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            snapshot = self.folder.snapshot(self.model, self.optimizer, progress, memory)
        self.copied = snapshot.copied
        return snapshot

    def await_copy(self) -> None:
        """Let what the GPU is told from now on come after the last snapshot."""
        if self.copied is not None:
            torch.cuda.current_stream(self.device).wait_event(self.copied)
            self.copied = None

    def _midway(self, waiting: Iterable[int], passed: int, last: str) -> Midway:
        if passed <= self.passed:
            # Stopped again before the place where it was resumed: it stands where it stood then,
            # and what waited there may not have come by again.
            passed, last, waiting = self.passed, self.last, {*waiting, *self.waited}
        place = self.device if self.scaler.is_enabled() else "cpu"
        return Midway(
            passed,
            self.seen,
            last,
            torch.tensor(sorted(waiting), dtype=torch.int64),
            # Where they are: reading them here would wait for the GPU.
            torch.stack(self.losses).float() if self.losses else torch.zeros(0),
            torch.stack([skipped.to(place) for skipped in self.skipped])
            if self.skipped
            else torch.zeros(0, dtype=torch.bool),
        )

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        progress = self.folder.load_progress(self.model, self.optimizer)
        if progress is None:
            return
        self.epoch, self.step = progress.epoch, progress.step
        if progress.loss_scale is not None and self.scaler.is_enabled():
            scale, since = progress.loss_scale
            state = self.scaler.state_dict() | {"scale": scale, "_growth_tracker": since}
            self.scaler.load_state_dict(state)
        if progress.chosen is not None:
            self.policy.load(progress.chosen)
        if (midway := progress.midway) is not None:
            self.passed, self.seen, self.last = midway.passed, midway.seen, midway.last
            self.waited = frozenset(midway.waiting.tolist())
            self.losses = list(midway.losses.to(self.device))
            self.skipped = list(midway.skipped)


def load_state(
    run: Run, model_id: str, device: torch.device, lock: Lock, policies: Policies
) -> TrainState:
    """A model of a run as its last checkpoint left it, or new.

    Args:
        run: The run.
        model_id: Which of its models.
        device: Where it trains.
        lock: Held while a model draws random numbers; one for a process.
        policies: How samples are treated.

    Raises:
        ModelError: Its checkpoint, or the weights it starts from, cannot be loaded.
    """
    training, number = run.config.training, run.design.model_ids().index(model_id)
    start = run.design.block_of(number) if run.config.shares_init else number
    kind = "shared init" if run.config.shares_init else "init"
    seed = seed_of(training.seed, kind, start) % (1 << 63)
    config = run.model_config(model_id)
    model = build_model(config, run.decoder.modalities, seed, storage=run.storage).to(device)
    model.precision = training.precision
    # Tensor cores want it too; in fp32, GPUs gain little.
    if device.type == "cpu" or model.precision != "fp32":
        model = channels_last(model)
    if training.compile:
        model = compiled(model)
    state = TrainState(
        model_id,
        number,
        model,
        build_optimizer(model, training),
        GradScaler(device.type, enabled=training.precision == "fp16"),
        SeededDropout(draws(model), device, lock),
        run.model_folder(model_id),
        policies.of(number),
    )
    state.resume()
    return state


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
