"""A bank trained in this process, without Ray: counted, resumed, and refused without samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import TrainingError
from multimem_ray.training.bank import Bank
from multimem_ray.training.worker import cache_folder, train_bank
from tests.small import small_run
from tests.training.epochs import SilentCounter


class Counting(SilentCounter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        self.told.append((task, amount))
        assert notes["loss"] > 0


def test_models_are_trained_and_their_epochs_counted(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    counter = Counting()
    train_bank(run, ["000", "001"], 2, 1, counter, shards.scored)
    assert counter.told == [("train", 2), ("train", 2)]
    for model_id in ("000", "001"):
        assert run.is_trained(model_id)
        lines = run.model_folder(model_id).history()
        assert [line["epoch"] for line in lines] == [0, 1]
        assert lines[-1]["held_out_recall"]
    assert list(cache_folder(run).glob("*.arrow"))


def test_an_early_stop_leaves_the_schedule_as_it_is(tmp_path: Path) -> None:
    sets = ("training.epochs=4", "training.warmup_steps=0")
    whole, shards = small_run(tmp_path, *sets)
    early, _ = small_run(tmp_path, *sets, "training.stop_at=0.5", f"output={tmp_path / 'early'}")
    counter = Counting()
    train_bank(whole, ["000"], 1, 1, SilentCounter(), shards.scored)
    train_bank(early, ["000"], 1, 1, counter, shards.scored)
    assert early.is_trained("000")
    assert len(counter.told) == 2
    told, known = (run.model_folder("000").history() for run in (early, whole))
    assert [line["epoch"] for line in told] == [0, 1]
    assert [line["lr"] for line in told] == [line["lr"] for line in known[:2]]
    assert [line["loss"] for line in told] == pytest.approx([line["loss"] for line in known[:2]])
    assert told[-1]["held_out_recall"]


def test_a_training_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path)
    train_epoch, epochs = Bank.train_epoch, []

    def once_stopped(bank: Bank, number: int, *rest: Any) -> Any:
        epochs.append(number)
        if epochs == [0, 1]:
            raise KeyboardInterrupt
        return train_epoch(bank, number, *rest)

    monkeypatch.setattr(Bank, "train_epoch", once_stopped)
    with pytest.raises(KeyboardInterrupt):
        train_bank(run, ["000"], 1, 1, SilentCounter(), shards.scored)
    train_bank(run, ["000"], 1, 1, SilentCounter(), shards.scored)
    assert epochs == [0, 1, 1]
    assert run.is_trained("000")


def test_nothing_to_train_on_is_told(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.999999")
    with pytest.raises(TrainingError, match="model 000: no sample to train on"):
        train_bank(run, ["000"], 1, 1, SilentCounter(), shards.scored)
