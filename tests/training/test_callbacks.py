"""When checkpoints are written, and what is told of an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multimem_ray.distributed.metrics import Monitor
from multimem_ray.errors import TrainingError
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.storage import Storage
from multimem_ray.training.callbacks import HOLDING_SHARE, WRITING_SHARE, TrainCallbacks
from multimem_ray.training.epoch_log import EpochLog


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Watched:
    """Callbacks of a bank of one model whose checkpoints take so many seconds; what was written."""

    def __init__(self, clock: Clock, folder: Path, every_s: float, takes_s: float) -> None:
        self.clock, self.takes_s = clock, takes_s
        self.folder = ModelFolder(Storage(), str(folder), "f" * 16)
        self.checkpoints: list[tuple[int | None, int, int]] = []
        self.counted: list[tuple[int, float | None]] = []
        self.can_stop_midway, self.stops = True, False
        self.copying_s, self.is_free, self.waits = 0.0, True, 0
        self.writer = SimpleNamespace(
            seconds=0.0, is_free=lambda: self.is_free, prepare=lambda _: True, wait=self._wait
        )
        self.config = SimpleNamespace(checkpoint_every_s=every_s, trained_epochs=9)
        self.models = [SimpleNamespace(id="000", folder=self.folder, model=None)]
        validation = SimpleNamespace(is_due=lambda n: n == 1, measure=lambda _: {"a_b": 0.5})
        loggers = SimpleNamespace(tell=lambda *_: None)
        bank: Any = self
        self.callbacks = TrainCallbacks(
            bank,
            EpochLog({"000": self.folder}, loggers),  # type: ignore[arg-type]
            validation,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            Monitor(""),
        )

    def begin_checkpoint(self, epoch: int | None, passed: int, first: Callable[[], None]) -> None:
        self.clock.now += self.takes_s
        first()
        self.checkpoints.append((epoch, passed, len(self.folder.history())))

    def _wait(self) -> None:
        self.waits += 1

    def is_stopping(self) -> bool:
        return self.stops

    def advance(self, _: str, amount: int, loss: float | None) -> None:
        self.counted.append((amount, loss))

    def end(self, epoch: int, loss: float | None = 1.0) -> None:
        self.callbacks.end_epoch(epoch, {"000": {"epoch": epoch, "loss": loss, "samples": 8}})


def test_checkpoints_hold_training_up_a_hundredth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    bank = Watched(clock, tmp_path, every_s=20.0, takes_s=0.25)
    clock.now += 19
    bank.callbacks.passing(0, 5)
    assert not bank.checkpoints
    clock.now += 1
    bank.callbacks.passing(0, 6)
    assert len(bank.checkpoints) == 1
    bank.copying_s += 0.25
    clock.now += 0.5 / HOLDING_SHARE - 0.25 - 1
    bank.end(0)
    assert len(bank.checkpoints) == 1
    clock.now += 1
    bank.end(1)
    assert len(bank.checkpoints) == 2


def test_one_is_written_at_a_time_and_most_of_the_time_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    bank = Watched(clock, tmp_path, every_s=20.0, takes_s=0.0)
    clock.now += 20
    bank.callbacks.passing(0, 5)
    bank.is_free = False
    clock.now += 1000
    bank.callbacks.passing(0, 6)
    assert len(bank.checkpoints) == 1
    bank.is_free, bank.writer.seconds = True, 300.0
    clock.now += 300 / WRITING_SHARE - 1001
    bank.callbacks.passing(0, 7)
    assert len(bank.checkpoints) == 1
    clock.now += 1
    bank.callbacks.passing(0, 8)
    assert len(bank.checkpoints) == 2


def test_nothing_between_two_epochs_is_too_often_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bank = Watched(Clock(monkeypatch), tmp_path, every_s=0.0, takes_s=6.0)
    bank.end(0)
    bank.end(1)
    assert len(bank.checkpoints) == 2
    bank.callbacks.passing(2, 5)
    assert len(bank.checkpoints) == 2
    bank.end(8)
    assert len(bank.checkpoints) == 2, "after the last epoch, the model itself is written"


def test_a_policy_that_observes_an_epoch_is_not_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    bank = Watched(clock, tmp_path, every_s=20.0, takes_s=2.0)
    bank.can_stop_midway = False
    clock.now += 30
    bank.callbacks.passing(0, 5)
    assert not bank.checkpoints


def test_the_history_is_written_before_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock(monkeypatch)
    bank = Watched(clock, tmp_path, every_s=20.0, takes_s=2.0)
    bank.end(0)
    assert not bank.folder.history()
    clock.now += 30
    bank.callbacks.passing(1, 300)
    clock.now += 10
    bank.end(1, loss=None)
    bank.end(2)
    clock.now += 200
    bank.end(3)
    assert bank.checkpoints == [(1, 300, 1), (None, 0, 4)]
    lines = bank.folder.history()
    assert [line.get("checkpoint_s") for line in lines] == [None, 2.0, None, None]
    assert [line.get("held_out_recall") for line in lines] == [None, {"a_b": 0.5}, None, None]
    assert bank.counted == [(1, 1.0), (1, None), (1, 1.0), (1, 1.0)]


@pytest.mark.parametrize("midway", [True, False])
def test_a_stop_is_a_checkpoint_where_one_can_be_and_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, midway: bool
) -> None:
    watched = Watched(Clock(monkeypatch), tmp_path / "000", every_s=1e6, takes_s=1.0)
    watched.can_stop_midway = midway
    watched.callbacks.passing(0, 5)
    watched.stops = True
    watched.clock.now += 1
    with pytest.raises(TrainingError, match="goes on from the checkpoint"):
        watched.callbacks.passing(0, 7)
    assert [(epoch, passed) for epoch, passed, _ in watched.checkpoints] == [(0, 7)] * midway
    assert watched.waits == midway, "the checkpoint is whole"
