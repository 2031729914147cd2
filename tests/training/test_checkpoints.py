"""Checkpoints beside the training: of one moment, one at a time, and none is lost in silence."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from multimem_ray.errors import StorageError
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from tests.small import small_run
from tests.training.epochs import epoch

CPU = torch.device("cpu")


class Gate:
    """Holds the writing of checkpoints up until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.written = threading.Event(), 0
        write = ModelFolder.write_progress

        def held(folder: ModelFolder, snapshot: Any) -> None:
            assert self.opened.wait(60)
            write(folder, snapshot)
            self.written += 1

        monkeypatch.setattr(ModelFolder, "write_progress", held)


@pytest.mark.parametrize("threads", [1, 2])
def test_training_goes_on_while_a_checkpoint_of_before_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    run, shards = small_run(tmp_path, "training.batch_size=5")
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    straight = Bank(run, ["000", "001"], CPU, threads)
    for number in range(2):
        straight.train_epoch(number, epoch(run, decoded, number))

    gate, bank = Gate(monkeypatch), Bank(run, ["000", "001"], CPU, threads)

    def passing(now: int) -> None:
        if now == 13:
            bank.begin_checkpoint(0, now)
            assert not bank.writer.is_free()

    for number in range(2):
        bank.train_epoch(number, epoch(run, decoded, number), passing if not number else None)
    before = gate.written
    gate.opened.set()
    bank.writer.wait()
    assert (before, gate.written) == (0, 2), "both epochs were over before it was there"
    assert bank.copying_s > 0

    again = Bank(run, ["000", "001"], CPU, threads)
    assert [(state.epoch, state.passed) for state in again.models] == [(0, 13)] * 2
    for number in range(2):
        again.train_epoch(number, epoch(run, decoded, number))
    for whole, resumed in zip(straight.models, again.models, strict=True):
        for name, value in whole.model.state_dict().items():
            torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=1e-6, rtol=0)


def test_a_second_waits_for_the_first_and_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path)
    gate, bank, told = Gate(monkeypatch), Bank(run, ["000", "001"], CPU, 2), list[int]()
    bank.begin_checkpoint(first=lambda: told.append(gate.written))
    bank.models[0].step = 5
    threading.Timer(0.2, gate.opened.set).start()
    started = time.monotonic()
    bank.begin_checkpoint(first=lambda: told.append(gate.written))
    assert time.monotonic() - started > 0.1
    bank.writer.wait()
    assert told == [0, 2], "what goes first goes before the files, and the first before the second"
    assert Bank(run, ["000"], CPU, 1).models[0].step == 5


def test_what_could_not_be_written_is_raised_in_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: ModelFolder, snapshot: Any) -> None:
        raise StorageError(f"{folder.url}: no space left on device")

    run, _ = small_run(tmp_path)
    bank = Bank(run, ["000"], CPU, 1)
    monkeypatch.setattr(ModelFolder, "write_progress", refused)
    bank.begin_checkpoint()
    with pytest.raises(StorageError, match="no space left"):
        bank.finish()
    bank.begin_checkpoint()
    bank.writer.close()
    with pytest.raises(StorageError, match="no space left"):
        bank.writer.is_free()
