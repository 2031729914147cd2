"""When checkpoints are written, and that history comes first."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from multimem_ray.training.worker import CHECKPOINT_SHARE, EpochLog


class Folder:
    """Notes what is written, in its order."""

    def __init__(self, written: list[Any]) -> None:
        self.written = written

    def append_history(self, lines: list[dict[str, Any]]) -> None:
        self.written.append([dict(line) for line in lines])


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def history(clock: Clock, every_s: float, takes_s: float) -> tuple[EpochLog, list[Any]]:
    written: list[Any] = []

    def checkpoint(epoch: int | None, passed: int) -> None:
        clock.now += takes_s
        written.append((epoch, passed))

    bank = SimpleNamespace(
        config=SimpleNamespace(checkpoint_every_s=every_s),
        models=[SimpleNamespace(id="000", folder=Folder(written))],
        checkpoint=checkpoint,
    )
    tracking = SimpleNamespace(tell=lambda *_: None)
    return EpochLog(bank, tracking), written  # type: ignore[arg-type]


def test_checkpoints_take_a_twentieth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    lines, _ = history(clock, every_s=20.0, takes_s=6.0)
    clock.now += 19
    assert not lines.is_due(midway=True)
    clock.now += 1
    assert lines.is_due()
    assert lines.is_due(midway=True)
    lines.checkpoint()
    clock.now += 6 / CHECKPOINT_SHARE - 6 - 1
    assert not lines.is_due()
    clock.now += 1
    assert lines.is_due()


def test_nothing_between_two_epochs_is_too_often_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    lines, _ = history(clock, every_s=0.0, takes_s=6.0)
    lines.checkpoint()
    assert lines.is_due()
    assert not lines.is_due(midway=True)


def test_the_history_is_written_before_the_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    lines, written = history(clock, every_s=20.0, takes_s=2.0)
    lines.add({"000": {"epoch": 0}})
    lines.checkpoint(1, 300)
    lines.add({"000": {"epoch": 1}})
    lines.add({"000": {"epoch": 2}})
    lines.checkpoint()
    first, second = {"epoch": 0}, {"epoch": 1, "checkpoint_s": 2.0}
    assert written == [[first], (1, 300), [second, {"epoch": 2}], (None, 0)]
