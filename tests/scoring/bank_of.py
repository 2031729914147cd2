"""Untrained but different models for a run, without training, and rows of work for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.models.build import build_model
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.shard import Scores

CPU = torch.device("cpu")


def finish_models(run: Run) -> None:
    """Write all models of the run as if they were trained."""
    for number, model_id in enumerate(run.design.model_ids()):
        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})


def batch_of(run: Run, samples: Mapping[str, Mapping[str, Array]]) -> DecodedBatch:
    """Decoded samples by key, with the random numbers of the views that scoring makes."""
    scoring = run.config.scoring
    views = range(scoring.views)
    return run.decoder.stacked(list(samples), list(samples.values()), scoring.seed, views)


def bank_of(run: Run) -> ScoringBank:
    """A bank of such models."""
    finish_models(run)
    return ScoringBank(run, CPU)


def some_statistics(run: Run) -> HeldOutStatistics:
    """Held-out means that are no constants."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(run.design.model_ids()), len(run.modalities), run.config.model.dim)
    return HeldOutStatistics(torch.randn(*shape, generator=generator, dtype=torch.float64) / 5)


def scores_of(run: Run, bank: ScoringBank) -> Scores:
    """What makes scores, against those means."""
    return Scores(run, bank, some_statistics(run))


def row_of(run: Run, shards: Shards, **changes: Any) -> dict[str, Any]:
    """A row of work: the first shard."""
    source = shards.scored[0]
    return {
        "kind": "shard", "url": source.url, "size": source.size, "version": source.version,
        "names": "[]", "stale": "[]", "retry": "",
    } | changes  # fmt: skip


class KilledError(BaseException):
    """Stands for a dead process: nothing in the scoring may catch it."""
