"""What runs inside a worker: one bank, from its last checkpoint to finished models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from multimem_ray.distributed.metrics import Monitor, gpu_memory
from multimem_ray.errors import TrainingError
from multimem_ray.mitigation.choice import policies
from multimem_ray.models.collectives import rank
from multimem_ray.prefetch import ahead
from multimem_ray.progress import Counter
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.training.bank import Bank
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.callbacks import TrainCallbacks
from multimem_ray.training.epoch_log import EpochLog
from multimem_ray.training.loggers import RunLoggers
from multimem_ray.training.stream import TrainingStream
from multimem_ray.training.validation import HeldOutRetrieval

_SAMPLES_AHEAD = 256


def train_bank(
    run: Run,
    model_ids: Sequence[str],
    threads: int,
    decoders: int,
    counter: Counter,
    shards: Sequence[FileInfo],
    monitor: Monitor | None = None,
    cache: Path | None = None,
) -> None:
    """Train models in this process; of several workers, each is a rank of the same training.

    Args:
        run: The run.
        model_ids: The models; each goes on from its last checkpoint.
        threads: Models that step at the same time on a CPU.
        decoders: Shards decoded at the same time, where this process decodes itself.
        counter: Counts the epochs done, of all models.
        shards: Shards that models train on.
        monitor: Counts what is done; default: for Prometheus, where Ray runs.
        cache: Folder for decoded shards; default: one of this run's.

    Raises:
        TrainingError: No sample to train on, or training diverged.
    """
    monitor = monitor or Monitor(run.output)
    training = run.config.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    decoded = DecodedCache(cache or cache_folder(run), int(training.cache_gb * 1e9))
    stream = TrainingStream(run, shards, decoded, decoders, device=device)
    # All ranks know the same weights and losses; the first one measures and writes.
    validation = HeldOutRetrieval(run, shards) if rank() == 0 else None
    treatment = policies(run, validation.means if validation else None)
    bank = Bank(run, model_ids, device, threads, treatment)
    with RunLoggers(run) as loggers, closing(bank.writer):
        callbacks = None
        if validation is not None:
            log = EpochLog({model.id: model.folder for model in bank.models}, loggers)
            callbacks = TrainCallbacks(bank, log, validation, counter, monitor)
        if bank.observes_first:
            bank.observe(ahead(stream.samples(0), _SAMPLES_AHEAD))
        for epoch in range(bank.next_epoch, training.trained_epochs):
            samples = stream.samples(epoch, partial(bank.needs, epoch), treatment.decoder)
            samples = ahead(monitor.timed("decode", samples), _SAMPLES_AHEAD)
            passing = partial(callbacks.passing, epoch) if callbacks else None
            with monitor.timing("train"):
                lines = bank.train_epoch(epoch, samples, passing)
            monitor.memory("train", gpu_memory())
            _require_samples(lines)
            if callbacks is not None:
                callbacks.end_epoch(epoch, lines)
        if callbacks is not None:
            callbacks.finish()


def cache_folder(run: Run) -> Path:
    """Folder on this node for the decoded shards of this run's data and decode settings."""
    return Path(run.config.resources.cache_dir).expanduser() / run.training_fingerprint


def _require_samples(lines: Mapping[str, dict[str, Any]]) -> None:
    for model_id, line in lines.items():
        if line["epoch"] == 0 and not line["step"]:
            raise TrainingError(
                f"model {model_id}: no sample to train on; every sample is held out, left "
                "out, or unusable (see errors/); lower held_out.fraction or add shards"
            )
