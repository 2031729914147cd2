"""Untrained but different models for a run, without training."""

from __future__ import annotations

import torch

from multimem_ray.models.build import build_model
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out_stats import HeldOutStatistics

CPU = torch.device("cpu")


def finish_models(run: Run) -> None:
    """Write all models of the run as if they were trained."""
    for number, model_id in enumerate(run.design.model_ids()):
        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})


def bank_of(run: Run) -> ScoringBank:
    """A bank of such models."""
    finish_models(run)
    return ScoringBank(run, CPU)


def some_statistics(run: Run) -> HeldOutStatistics:
    """Held-out means that are no constants."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(run.design.model_ids()), len(run.modalities), run.config.model.dim)
    return HeldOutStatistics(torch.randn(*shape, generator=generator, dtype=torch.float64) / 5)
