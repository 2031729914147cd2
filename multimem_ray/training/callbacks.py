"""What happens beside the steps of a bank: checkpoints, measurements, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from multimem_ray.distributed.metrics import Monitor
from multimem_ray.errors import TrainingError
from multimem_ray.progress import Counter
from multimem_ray.training.bank import Bank
from multimem_ray.training.epoch_log import EpochLog
from multimem_ray.training.validation import HeldOutRetrieval

HOLDING_SHARE = 0.01
"""Most of the time for which checkpoints hold training up, unless each epoch is to have one."""

WRITING_SHARE = 0.2
"""Most of the time in which one is being written beside the training, unless as above."""

_ASK_EVERY_S = 0.3


class TrainCallbacks:
    """What is measured, told and kept of the epochs of a bank, on its first rank.

    Args:
        bank: The models.
        log: Where the epochs are written.
        validation: Measures the models.
        counter: Where progress is shown.
        monitor: Counts what is done.
    """

    def __init__(
        self,
        bank: Bank,
        log: EpochLog,
        validation: HeldOutRetrieval,
        counter: Counter,
        monitor: Monitor,
    ) -> None:
        self._bank, self._log, self._validation = bank, log, validation
        self._counter, self._monitor = counter, monitor
        self._saved, self._asked = time.monotonic(), 0.0
        # Seconds: what the thread of the training waited for checkpoints, and how long all of the
        # training had stood still for them when the last one was begun, and when it was told.
        self._waited = self._held_before = self._told = 0.0

    def end_epoch(self, number: int, lines: Mapping[str, dict[str, Any]]) -> None:
        """An epoch is over.

        Args:
            number: The epoch.
            lines: Model id → its line of the history, to which measurements are added.
        """
        due = self._validation.is_due(number)
        for model in self._bank.models:
            if due and model.id in lines:
                lines[model.id]["held_out_recall"] = self._validation.measure(model.model)
        if (held := self._held()) > self._told:
            for line in lines.values():
                line["checkpoint_s"] = round(held - self._told, 6)
            self._told = held
        self._log.add(lines)
        losses = [line["loss"] for line in lines.values() if line["loss"] is not None]
        self._monitor.samples("train", sum(line["samples"] for line in lines.values()))
        for model_id, line in lines.items():
            self._monitor.loss(model_id, line["loss"])
        mean = sum(losses) / len(losses) if losses else None
        self._counter.advance("train", len(lines), loss=mean)
        if number + 1 < self._bank.config.trained_epochs and self._is_due():
            self._checkpoint()

    def passing(self, epoch: int, passed: int) -> None:
        """So many samples of an epoch are behind.

        Raises:
            TrainingError: Training shall end here; what can be kept is kept.
            StorageError: A checkpoint could not be written.
        """
        now = time.monotonic()
        if now - self._asked > _ASK_EVERY_S:
            self._asked = now
            self._bank.writer.is_free()  # or raises
            if self._counter.is_stopping():
                if self._bank.can_stop_midway:
                    self._checkpoint(epoch, passed)
                    self._bank.writer.wait()
                raise TrainingError("stopped; the same command goes on from the checkpoint")
        if self._is_due(midway=True) and self._bank.can_stop_midway:
            self._checkpoint(epoch, passed)

    def finish(self) -> None:
        """Training is over."""
        self._bank.writer.wait()
        self._log.write()
        self._bank.finish()

    def _is_due(self, *, midway: bool = False) -> bool:
        """Whether it is time for a checkpoint, at the end of an epoch or within it."""
        every = self._bank.config.checkpoint_every_s
        if not midway and not every:
            return True
        age, writer = time.monotonic() - self._saved, self._bank.writer
        held = self._held() - self._held_before
        least = max(every, held / HOLDING_SHARE, writer.seconds / WRITING_SHARE)
        return age >= least and writer.is_free() and writer.prepare(self._bank.models)

    def _held(self) -> float:
        return self._waited + self._bank.copying_s

    def _checkpoint(self, epoch: int | None = None, passed: int = 0) -> None:
        """Have the history, then the place of every model written.

        See :meth:`Bank.begin_checkpoint`.
        """
        self._saved, self._held_before = time.monotonic(), self._held()
        lines = self._log.take()
        self._bank.begin_checkpoint(epoch, passed, lambda: self._log.write(lines))
        self._waited += time.monotonic() - self._saved
