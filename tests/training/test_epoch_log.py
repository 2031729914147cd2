"""Lines of the history: what they say of an epoch, and that none is lost."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch

from multimem_ray.errors import TrainingError
from multimem_ray.mitigation.policy import Policies
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.storage import Storage
from multimem_ray.training.epoch_log import EpochLog, epoch_line
from multimem_ray.training.train_state import TrainState, load_state
from tests.small import small_run


def ended(folder: Path, losses: list[float], skipped: list[bool]) -> TrainState:
    """The state of a model after an epoch of such steps."""
    run, _ = small_run(folder)
    state = load_state(run, "001", torch.device("cpu"), Lock(), Policies())
    state.epoch, state.step, state.seen = 3, 10, 40
    state.losses = [torch.tensor(loss) for loss in losses]
    state.skipped = [torch.tensor(one) for one in skipped]
    return state


def test_a_line_tells_of_the_epoch(tmp_path: Path) -> None:
    line = epoch_line(ended(tmp_path, [1.0, 2.0], [False, False]))
    lr = small_run(tmp_path)[0].config.training.lr
    assert line == {"epoch": 3, "step": 10, "loss": 1.5, "lr": lr, "samples": 40}


def test_an_epoch_without_a_step_has_no_loss(tmp_path: Path) -> None:
    assert epoch_line(ended(tmp_path, [], []))["loss"] is None


def test_a_loss_that_is_no_number_is_divergence_unless_the_step_was_skipped(tmp_path: Path) -> None:
    line = epoch_line(ended(tmp_path, [1.0, float("inf"), 3.0], [False, True, False]))
    assert line["loss"] == 2.0
    with pytest.raises(TrainingError, match=r"model 001: the loss is nan at step 8 \(epoch 3\)"):
        epoch_line(ended(tmp_path, [float("nan"), 3.0], [False, False]))


def test_lines_wait_until_they_are_written_and_are_told_once(tmp_path: Path) -> None:
    folders = {name: ModelFolder(Storage(), str(tmp_path / name), "f" * 16) for name in ("a", "b")}
    told: list[Any] = []

    class Loggers:
        def tell(self, model_id: str, _: ModelFolder, lines: list[dict[str, Any]]) -> None:
            told.append((model_id, [line["epoch"] for line in lines]))

    log = EpochLog(folders, Loggers())  # type: ignore[arg-type]
    log.add({"a": {"epoch": 0}, "b": {"epoch": 0}})
    log.add({"a": {"epoch": 1}})
    assert not folders["a"].history()
    log.write()
    log.write()
    assert [line["epoch"] for line in folders["a"].history()] == [0, 1]
    assert told == [("a", [0, 1]), ("b", [0])]
