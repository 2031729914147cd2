"""What is told of an epoch: a line of ``history.jsonl``, and of the configured loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multimem_ray.errors import TrainingError
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.training.loggers import RunLoggers
from multimem_ray.training.train_state import TrainState

# Thirty halvings of the loss scale below where it starts: the trouble with gradients that are still
# not finite is not that they are too large for fp16.
_LEAST_LOSS_SCALE = 2.0**-14


class EpochLog:
    """Lines that wait for the next checkpoint.

    They are written just before it: whoever dies in between does those epochs again and writes
    the same lines in their place, and no epoch is ever missing.

    Args:
        folders: Of the models that are told of, by id.
        loggers: Are told what was written.
    """

    def __init__(self, folders: Mapping[str, ModelFolder], loggers: RunLoggers) -> None:
        self._folders, self._loggers = folders, loggers
        self._waiting: dict[str, list[dict[str, Any]]] = {model_id: [] for model_id in folders}

    def add(self, lines: Mapping[str, dict[str, Any]]) -> None:
        """An epoch of some models, by their ids."""
        for model_id, line in lines.items():
            self._waiting[model_id].append(line)

    def take(self) -> dict[str, list[dict[str, Any]]]:
        """The lines that wait, which are from now on the caller's to write."""
        lines, self._waiting = self._waiting, {model_id: [] for model_id in self._folders}
        return lines

    def write(self, lines_of: Mapping[str, list[dict[str, Any]]] | None = None) -> None:
        """Write lines, by the ids of their models; default: those that wait."""
        for model_id, lines in (self.take() if lines_of is None else lines_of).items():
            folder = self._folders[model_id]
            if lines:
                folder.append_history(lines)
                self._loggers.tell(model_id, folder, lines)


def epoch_line(state: TrainState) -> dict[str, Any]:
    """The line of the epoch that a model just ended, after making sure that its loss is a number.

    In fp16 a step whose gradients overflow is skipped and the next one is scaled down; such steps
    are counted and are no divergence, unless scaling down has stopped helping.

    Raises:
        TrainingError: Training diverged; names the model and the step.
    """
    losses = torch.stack(state.losses).float().cpu() if state.losses else torch.zeros(0)
    finite = torch.isfinite(losses)
    skipped = torch.stack([s.cpu() for s in state.skipped]) if state.skipped else finite
    _require_convergence(state, losses, finite | skipped)
    losses = losses[finite]
    line = {
        "epoch": state.epoch,
        "step": state.step,
        "loss": float(losses.mean()) if len(losses) else None,
        "lr": state.optimizer.param_groups[0]["lr"],
        "samples": state.seen,
    }
    if state.scaler.is_enabled():
        line["skipped_steps"] = int(skipped.sum())
    return line


def _require_convergence(state: TrainState, losses: Tensor, sound: Tensor) -> None:
    bad = (~sound).nonzero()
    if len(bad):
        step = state.step - len(losses) + int(bad[0])
        raise TrainingError(
            f"model {state.id}: the loss is {losses[bad[0]].item()} at step {step} (epoch "
            f"{state.epoch}); lower training.lr or set training.clip_norm"
        )
    if state.scaler.is_enabled() and state.scaler.get_scale() < _LEAST_LOSS_SCALE:
        raise TrainingError(
            f"model {state.id}: gradients are not finite in fp16, however far the loss is "
            f"scaled down, at step {state.step} (epoch {state.epoch}); set "
            "training.precision to bf16, or lower training.lr"
        )
