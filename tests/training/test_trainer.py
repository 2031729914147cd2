"""How often a bank is started again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import TrainingError
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.run import Run
from multimem_ray.training import trainer
from tests.small import small_run


class Lost(RuntimeError):
    """A worker that went away."""


def attempts(run: Run, monkeypatch: pytest.MonkeyPatch, outcomes: list[Any]) -> list[int]:
    """Train a bank whose attempts end as told; an attempt that comes further adds an epoch."""
    made: list[int] = []

    def fit(*_: Any) -> None:
        made.append(len(made))
        error, further = outcomes[len(made) - 1]
        if further:
            ModelFolder.append_history(run.model_folder("000"), [{"epoch": len(made)}])
        if error is not None:
            raise error

    monkeypatch.setattr(trainer, "_fit", fit)
    nothing: Any = None
    trainer._train(run, nothing, ["000", "001"], nothing, nothing, threading.Event())
    return made


def test_a_bank_that_comes_further_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = small_run(tmp_path)
    outcomes = [(Lost("spot node"), True)] * 12 + [(None, True)]
    assert len(attempts(run, monkeypatch, outcomes)) == 13


def test_a_bank_that_comes_no_further_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    outcomes = [(Lost("first"), True), *[(Lost("again"), False)] * 9]
    with pytest.raises(Lost, match="again"):
        attempts(run, monkeypatch, outcomes)
    assert len(run.model_folder("000").history()) == 1


def test_what_would_be_the_same_again_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    wrapped = RuntimeError("of Ray Train")
    wrapped.__cause__ = TrainingError("model 000: the loss is nan at step 7")
    with pytest.raises(RuntimeError, match="of Ray Train"):
        attempts(run, monkeypatch, [(wrapped, True), (None, True)])
