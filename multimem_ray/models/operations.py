"""What a model computes for one sample."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from multimem_ray.modalities.base import Modality
from multimem_ray.models.contrastive import ContrastiveModel


def operations(model: ContrastiveModel, modalities: tuple[Modality, ...]) -> int:
    """Floating-point operations of matrix products and convolutions, to embed one sample.

    Args:
        modalities: What it embeds.
    """
    inputs = {
        m.name: torch.zeros((1, *m.spec.shape), dtype=getattr(torch, m.spec.dtype))
        for m in modalities
    }
    was = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval().embed(model.prepare(inputs))
    model.train(was)
    return int(counter.get_total_flops())
