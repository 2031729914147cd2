"""An audit in this very process: train on some samples, score a shard, without Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimem_ray.config import Config
from multimem_ray.errors import SampleError
from multimem_ray.metric import MeanAccumulator
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank, make_views
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.shard import ScoredShard, Scores, score_shard
from multimem_ray.setup import apply_overrides, inspect, resolve
from multimem_ray.shards.reader import read_shard
from multimem_ray.training.bank import Bank
from multimem_ray.training.source import training_samples

CPU = torch.device("cpu")


def trial_config(shards: Sequence[Path], output: Path, preset: str, *sets: str) -> Config:
    """An audit of those shards with two models of a preset and one epoch."""
    raw: dict[str, Any] = {
        "output": str(output),
        "data": {"shards": [str(shard) for shard in shards]},
        "held_out": {"fraction": 0.2},
        "design": {"models": 2},
        "model": {"preset": preset},
        "training": {"epochs": 1, "batch_size": 16},
        "scoring": {"views": 2},
    }
    return resolve(apply_overrides(raw, sets))


def trial_run(shards: Sequence[Path], output: Path, preset: str, *sets: str) -> tuple[Run, Shards]:
    """The opened run of :func:`trial_config`."""
    return inspect(trial_config(shards, output, preset, *sets))


def train(run: Run, shards: Shards, most: int | None = None) -> dict[str, dict[str, Any]]:
    """One epoch of all models on the first samples; the finished models are written."""
    bank = Bank(run, run.design.model_ids(), CPU, 1)
    found = (s for shard in shards.scored for s in training_samples(run, shard))
    prepared = [
        (run.decoder.clean(s.arrays), run.design.members([s.group])[0].tolist(), 0.0)
        for s in islice(found, most)
    ]
    lines = bank.train_epoch(0, prepared)
    bank.finish()
    return lines


def score(run: Run, shards: Shards, which: int = 0) -> ScoredShard:
    """Scores of one shard, against its own held-out samples."""
    bank, shard = ScoringBank(run, CPU), shards.scored[which]
    held_out = HeldOutStatistics(means(run, bank, shard.url))
    return score_shard(Scores(run, bank, held_out), shard)


def means(run: Run, bank: ScoringBank, url: str) -> Tensor:
    """Mean vectors (M, n, d) of the held-out samples of a shard."""
    held_out = [
        sample
        for sample in read_shard(url, run.storage)
        if isinstance(sample, Sample)
        and run.held_out_rule.is_held_out([run.group(sample)], sample.shard)[0]
    ]
    decoded = {}
    for sample in held_out:
        with contextlib.suppress(SampleError):
            decoded[sample.key] = run.decoder.decode(sample)
    views = make_views(run.decoder, run.config.scoring, list(decoded), list(decoded.values()))
    found = []
    for embedded in bank.embed(views):
        accumulator = MeanAccumulator(run.modalities, embedded.shape[-1])
        accumulator.add(embedded, views.present)
        found.append(accumulator.means())
    return torch.stack(found)
