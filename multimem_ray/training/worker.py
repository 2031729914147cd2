"""What runs inside a Ray Train worker: one bank, from its last checkpoint to finished models."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch

from multimem_ray.board import Board
from multimem_ray.errors import TrainingError
from multimem_ray.modalities.base import Array
from multimem_ray.prefetch import ahead
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.training.bank import Bank
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.stream import TrainingStream


@dataclass(frozen=True)
class BankTask:
    """One bank's work.

    Args:
        run: The run.
        model_ids: The models of this bank.
        threads: Models that step at the same time on a CPU.
        decoders: Shards decoded at the same time, where the worker itself decodes.
        board: Where progress is shown.
    """

    run: Run
    model_ids: Sequence[str]
    threads: int
    decoders: int
    board: Board


def train_bank(task: BankTask, reference: ray.ObjectRef[Any]) -> None:
    """Train loop of a Ray Train worker.

    Args:
        task: What to do.
        reference: To the shards that models train on.

    Raises:
        TrainingError: No sample to train on, or training diverged.
    """
    shards: Sequence[FileInfo] = ray.get(reference)
    run = task.run
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    cache = DecodedCache(cache_folder(run), int(run.config.training.cache_gb * 1e9))
    stream = TrainingStream(run, shards, cache, task.decoders)
    bank = Bank(run, task.model_ids, device, task.threads)
    saved = time.monotonic()
    history: dict[str, list[dict[str, Any]]] = {model_id: [] for model_id in task.model_ids}
    for epoch in range(bank.next_epoch, run.config.training.epochs):
        lines = bank.train_epoch(epoch, ahead(_prepared(run, stream, epoch), 256))
        for model_id, line in lines.items():
            if epoch == 0 and not line["step"]:
                raise TrainingError(
                    f"model {model_id}: no sample to train on; every sample is held out, left "
                    "out, or unusable (see errors/); lower held_out.fraction or add shards"
                )
            history[model_id].append(line)
        task.board.advance("train", len(lines), loss=_mean([x["loss"] for x in lines.values()]))
        last = epoch + 1 == run.config.training.epochs
        if not last and time.monotonic() - saved >= run.config.training.checkpoint_every_s:
            _save(bank, history)
            saved = time.monotonic()
    _save_history(bank, history)
    bank.finish()
    ray.train.report({"models": list(task.model_ids)})


def cache_folder(run: Run) -> Path:
    """Folder on this node for the decoded shards of this run's data and decode settings."""
    root = Path(run.config.resources.cache_dir).expanduser()
    return root / run.training_fingerprint


def _prepared(
    run: Run, stream: TrainingStream, epoch: int
) -> Iterator[tuple[dict[str, Array], Sequence[bool], float]]:
    """Views of the epoch's samples with their membership."""
    training = run.config.training
    known: dict[str, Sequence[bool]] = {}
    for sample, share in stream.epoch(epoch):
        if training.augment:
            views = run.decoder.views(sample.key, sample.arrays, training.seed, epoch, "train")
        else:
            views = run.decoder.clean(sample.arrays)
        if sample.group not in known:
            if len(known) > 100_000:
                known.clear()
            known[sample.group] = run.design.members([sample.group])[0].tolist()
        yield views, known[sample.group], share


def _save(bank: Bank, history: dict[str, list[dict[str, Any]]]) -> None:
    bank.checkpoint()
    _save_history(bank, history)


def _save_history(bank: Bank, history: dict[str, list[dict[str, Any]]]) -> None:
    for model in bank.models:
        model.folder.append_history(history[model.id])
        history[model.id] = []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
