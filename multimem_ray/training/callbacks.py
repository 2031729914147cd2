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

CHECKPOINT_SHARE = 0.05
"""Most of the time that goes into checkpoints, unless one is asked for after every epoch."""

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
        self._saved, self._last_took = time.monotonic(), 0.0
        self._untold: float | None = None
        self._asked = 0.0

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
        if self._untold is not None:
            for line in lines.values():
                line["checkpoint_s"] = round(self._untold, 4)
            self._untold = None
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
        """
        now = time.monotonic()
        if now - self._asked > _ASK_EVERY_S:
            self._asked = now
            if self._counter.is_stopping():
                if self._bank.can_stop_midway:
                    self._checkpoint(epoch, passed)
                raise TrainingError("stopped; the same command goes on from the checkpoint")
        if self._is_due(midway=True) and self._bank.can_stop_midway:
            self._checkpoint(epoch, passed)

    def finish(self) -> None:
        """Training is over."""
        self._log.write()
        self._bank.finish()

    def _is_due(self, *, midway: bool = False) -> bool:
        """Whether it is time for a checkpoint, at the end of an epoch or within it."""
        every = self._bank.config.checkpoint_every_s
        if not midway and not every:
            return True
        age = time.monotonic() - self._saved
        return age >= max(every, self._last_took * (1 / CHECKPOINT_SHARE - 1))

    def _checkpoint(self, epoch: int | None = None, passed: int = 0) -> None:
        """Write the history, then the place of every model; see :meth:`Bank.checkpoint`."""
        started = time.monotonic()
        self._log.write()
        self._bank.checkpoint(epoch, passed)
        self._saved = time.monotonic()
        self._last_took = self._saved - started
        self._untold = (self._untold or 0.0) + self._last_took
