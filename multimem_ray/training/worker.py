"""What runs inside a worker: one bank, from its last checkpoint to finished models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from multimem_ray.distributed.executor import Board
from multimem_ray.distributed.metrics import Monitor, gpu_memory
from multimem_ray.errors import TrainingError
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.collectives import rank
from multimem_ray.prefetch import ahead
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.training.bank import Bank
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.loggers import RunLoggers
from multimem_ray.training.prepared import TrainingSample
from multimem_ray.training.stream import TrainingStream
from multimem_ray.training.validation import HeldOutRetrieval

CHECKPOINT_SHARE = 0.05
"""Most of the time that goes into checkpoints, unless one is asked for after every epoch."""


@dataclass(frozen=True)
class BankTask:
    """One bank's work.

    Args:
        run: The run.
        model_ids: The models of this bank.
        threads: Models that step at the same time on a CPU.
        decoders: Shards decoded at the same time, where the worker itself decodes.
        board: What its epochs are counted on.
    """

    run: Run
    model_ids: Sequence[str]
    threads: int
    decoders: int
    board: Board


def train_bank(
    task: BankTask,
    shards: Sequence[FileInfo],
    monitor: Monitor | None = None,
    cache: Path | None = None,
) -> None:
    """Train a bank in this process; of several workers, each is a rank of the same training.

    Args:
        task: What to do.
        shards: Shards that models train on.
        monitor: Counts what is done; default: for Prometheus, where Ray runs.
        cache: Folder for decoded shards; default: one of this run's.

    Raises:
        TrainingError: No sample to train on, or training diverged.
    """
    monitor = monitor or Monitor(task.run.output)
    run, training = task.run, task.run.config.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    decoded = DecodedCache(cache or cache_folder(run), int(training.cache_gb * 1e9))
    stream = TrainingStream(run, shards, decoded, task.decoders)
    means = HeldOutRetrieval(run, shards).means if run.config.mitigation.watches else None
    bank = Bank(run, task.model_ids, device, task.threads, means)
    with RunLoggers(run) as tracking:
        # All ranks know the same weights and losses; the first one measures and writes.
        teller = (
            TrainCallbacks(task, bank, shards, EpochLog(bank, tracking)) if rank() == 0 else None
        )
        if bank.must_look:
            bank.look(ahead(_prepared(run, stream, 0), 256))
        for epoch in range(bank.next_epoch, training.epochs):
            wants = partial(bank.wants, epoch)
            prepared = monitor.timed("decode", _prepared(run, stream, epoch, wants))
            passing = partial(teller.passing, epoch) if teller is not None else None
            with monitor.timing("train"):
                lines = bank.train_epoch(epoch, ahead(prepared, 256), passing)
            monitor.memory("train", gpu_memory())
            _require_samples(lines)
            if teller is not None:
                teller.epoch(epoch, lines, monitor)
        if teller is not None:
            teller.finish()


class TrainCallbacks:
    """What is measured, told and kept of the epochs of a bank, on its first rank.

    Args:
        task: What the worker does.
        bank: Its models.
        shards: Shards that models train on.
        history: Where the epochs are written.
    """

    def __init__(
        self, task: BankTask, bank: Bank, shards: Sequence[FileInfo], history: EpochLog
    ) -> None:
        self._board, self._bank, self._history = task.board, bank, history
        self._training = task.run.config.training
        self._retrieval = HeldOutRetrieval(task.run, shards)

    def epoch(self, number: int, lines: Mapping[str, dict[str, Any]], monitor: Monitor) -> None:
        """An epoch is over."""
        if self._retrieval.is_due(number):
            for model in self._bank.models:
                if model.id in lines:
                    lines[model.id]["held_out_recall"] = self._retrieval.measure(model.model)
        self._history.add(lines)
        monitor.samples("train", sum(line["samples"] for line in lines.values()))
        for model_id, line in lines.items():
            monitor.loss(model_id, line["loss"])
        self._board.advance("train", len(lines), loss=_mean([x["loss"] for x in lines.values()]))
        if number + 1 < self._training.epochs and self._history.is_due():
            self._history.checkpoint()

    def passing(self, number: int, passed: int) -> None:
        """So many samples of an epoch are behind."""
        if self._history.is_due(midway=True) and self._bank.can_stop_midway:
            self._history.checkpoint(number, passed)

    def finish(self) -> None:
        """Training is over."""
        self._history.write()
        self._bank.finish()


class EpochLog:
    """Lines of ``history.jsonl``, and of the trackers, that wait for the next checkpoint.

    They are written just before it: whoever dies in between does those epochs again and writes
    the same lines in their place, and no epoch is ever missing.
    """

    def __init__(self, bank: Bank, tracking: RunLoggers) -> None:
        self._bank, self._tracking = bank, tracking
        self._every_s = bank.config.checkpoint_every_s
        self._waiting: dict[str, list[dict[str, Any]]] = {model.id: [] for model in bank.models}
        self._saved = time.monotonic()
        self._took: float | None = None
        self._last_took = 0.0

    def is_due(self, *, midway: bool = False) -> bool:
        """Whether it is time for a checkpoint, at the end of an epoch or within it."""
        age = time.monotonic() - self._saved
        if not midway and not self._every_s:
            return True
        return age >= max(self._every_s, self._last_took * (1 / CHECKPOINT_SHARE - 1))

    def add(self, lines: Mapping[str, dict[str, Any]]) -> None:
        """An epoch of some models; it tells how long checkpoints took since the one before."""
        for model_id, line in lines.items():
            if self._took is not None:
                line["checkpoint_s"] = round(self._took, 4)
            self._waiting[model_id].append(line)
        self._took = None

    def checkpoint(self, epoch: int | None = None, passed: int = 0) -> None:
        """Write the history, then the place of every model; see :meth:`Bank.checkpoint`."""
        started = time.monotonic()
        self.write()
        self._bank.checkpoint(epoch, passed)
        self._saved = time.monotonic()
        self._last_took = self._saved - started
        self._took = (self._took or 0.0) + self._last_took

    def write(self) -> None:
        """Write the lines that wait."""
        for model in self._bank.models:
            lines, self._waiting[model.id] = self._waiting[model.id], []
            if lines:
                model.folder.append_history(lines)
                self._tracking.tell(model.id, model.folder, lines)


def _require_samples(lines: Mapping[str, dict[str, Any]]) -> None:
    for model_id, line in lines.items():
        if line["epoch"] == 0 and not line["step"]:
            raise TrainingError(
                f"model {model_id}: no sample to train on; every sample is held out, left "
                "out, or unusable (see errors/); lower held_out.fraction or add shards"
            )


def cache_folder(run: Run) -> Path:
    """Folder on this node for the decoded shards of this run's data and decode settings."""
    root = Path(run.config.resources.cache_dir).expanduser()
    return root / run.training_fingerprint


def _prepared(
    run: Run,
    stream: TrainingStream,
    epoch: int,
    wants: Callable[[int, Sequence[bool]], bool] | None = None,
) -> Iterator[TrainingSample]:
    """Views of the epoch's samples, where this rank has them, with their membership.

    Args:
        wants: Of a sample's place and membership, whether it is needed; views of others are spared.
    """
    training = run.config.training
    strong = stronger_decoder(run)
    known: dict[str, Sequence[bool]] = {}
    for place, (sample, share) in enumerate(stream.epoch(epoch)):
        if sample.group not in known:
            if len(known) > 100_000:
                known.clear()
            known[sample.group] = run.design.members([sample.group])[0].tolist()
        members = known[sample.group]
        views: dict[str, Array] | None = None
        stronger = None
        if not sample.arrays or (wants is not None and not wants(place, members)):
            pass  # another rank has it, or it was used before a stop
        elif training.augment:
            views = run.decoder.views(sample.key, sample.arrays, training.seed, epoch, "train")
        else:
            views = run.decoder.clean(sample.arrays)
        if strong is not None and views is not None:
            stronger = partial(
                strong.views, sample.key, sample.arrays, training.seed, epoch, "train"
            )
        yield TrainingSample(views, members, share, sample.key, stronger)


def stronger_decoder(run: Run) -> Decoder | None:
    """Makes the views of regrouped samples; None if they are no others."""
    mitigation = run.config.mitigation
    if mitigation.kind == "none" or mitigation.treatment != "augment" or mitigation.views == 1.0:
        return None
    settings = {
        m.name: m.settings.model_dump() | {"strength": m.settings.strength * mitigation.views}
        for m in run.decoder.modalities
    }
    return Decoder(run.fields, settings)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
