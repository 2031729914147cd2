"""How often a bank is started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from multimem_ray.errors import StorageError, TrainingError
from multimem_ray.models.checkpoint import Progress
from multimem_ray.run import Run
from multimem_ray.training import trainer
from tests.small import small_run


class Lost(RuntimeError):
    """A worker that went away."""


class Attempts:
    """Trains a bank whose attempts end as told; one that comes further has more steps."""

    def __init__(self, run: Run, outcomes: list[tuple[Exception | None, str]]) -> None:
        self.run, self.outcomes, self.made = run, outcomes, 0
        self.over = threading.Event()

    def train(self) -> int:
        """How many attempts there were."""
        folders = [self.run.model_folder(model_id) for model_id in ("000", "001")]
        trainer._train(self._fit, folders, self.over, distributed=True)
        return self.made

    def _fit(self) -> None:
        error, further = self.outcomes[self.made]
        self.made += 1
        folder = self.run.model_folder("000")
        if further == "an epoch":
            folder.append_history([{"epoch": self.made, "step": 10 * self.made}])
        elif further == "some steps":
            model = torch.nn.Linear(2, 2)
            optimizer = torch.optim.SGD(model.parameters())
            folder.save_progress(model, optimizer, Progress(0, 10 * self.made))
        if error is not None:
            raise error


@pytest.mark.parametrize("further", ["an epoch", "some steps"])
def test_a_bank_that_comes_further_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: str
) -> None:
    run, _ = small_run(tmp_path)
    outcomes: list[tuple[Exception | None, str]] = [(Lost("spot node"), further)] * 12
    assert Attempts(run, [*outcomes, (None, further)]).train() == 13


def test_a_bank_that_comes_no_further_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    bank = Attempts(run, [(Lost("first"), "an epoch"), *[(Lost("again"), "")] * 9])
    with pytest.raises(Lost, match="again"):
        bank.train()
    assert bank.made == 1 + trainer.RETRIES


def test_what_would_be_the_same_again_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    wrapped = RuntimeError("of Ray Train")
    wrapped.__cause__ = TrainingError("model 000: the loss is nan at step 7")
    bank = Attempts(run, [(wrapped, "an epoch"), (None, "")])
    with pytest.raises(RuntimeError, match="of Ray Train"):
        bank.train()
    assert bank.made == 1


def test_a_store_that_failed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    bank = Attempts(run, [(StorageError("s3://b/x: timed out"), ""), (None, "")])
    assert bank.train() == 2


def test_nothing_is_tried_again_when_all_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    bank = Attempts(run, [(Lost("Ray is gone"), "an epoch"), (None, "")])
    bank.over.set()
    with pytest.raises(Lost):
        bank.train()
    assert bank.made == 1


class SideBySide:
    """Two banks: the first ends as told; what became of the second, and whether it was to stop."""

    def __init__(self, looks: BaseException | None = None) -> None:
        self.looks, self.stopping = looks, threading.Event()
        self.both, self.began = threading.Barrier(2), threading.Event()
        self.ended: list[str] = []

    def look(self, _: str) -> tuple[int, dict[str, float]]:
        if self.looks is not None:
            self.began.wait(20)
            raise self.looks
        return 0, {}

    def stop(self) -> None:
        self.stopping.set()

    def first_fails(self, models: Sequence[str]) -> None:
        self.both.wait(20)
        if models == ["a"]:
            raise TrainingError("so")
        time.sleep(0.3)
        self.ended.append("finished")

    def until_stopped(self, models: Sequence[str]) -> None:
        self.both.wait(20)
        self.began.set()
        assert self.stopping.wait(20)
        self.ended.append(f"kept {models[0]}")


def test_banks_under_way_finish_where_another_fails() -> None:
    banks, over = SideBySide(), threading.Event()
    shown = SimpleNamespace(total=1, update=lambda *_: None)
    with pytest.raises(TrainingError, match="so"):
        trainer._side_by_side(banks.first_fails, [["a"], ["b"]], 2, banks, shown, over)  # type: ignore[arg-type]
    assert banks.ended == ["finished"]
    assert not banks.stopping.is_set()
    assert over.is_set()


def test_banks_that_were_not_begun_are_not_waited_for() -> None:
    banks, over = SideBySide(), threading.Event()
    banks.both = threading.Barrier(1)
    shown = SimpleNamespace(total=1, update=lambda *_: None)
    with pytest.raises(TrainingError, match="so"):
        trainer._side_by_side(banks.first_fails, [["a"], ["b"], ["c"]], 1, banks, shown, over)  # type: ignore[arg-type]
    assert len(banks.ended) <= 1


def test_an_interrupt_has_banks_keep_where_they_are_and_begins_no_other() -> None:
    banks, over = SideBySide(looks=KeyboardInterrupt()), threading.Event()
    shown = SimpleNamespace(total=1, update=lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        trainer._side_by_side(banks.until_stopped, [["a"], ["b"], ["c"]], 2, banks, shown, over)  # type: ignore[arg-type]
    assert sorted(banks.ended) == ["kept a", "kept b"]
    assert over.is_set()
