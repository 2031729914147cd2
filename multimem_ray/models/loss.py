"""The contrastive loss over all pairs of modalities that are present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from multimem_ray.models.collectives import gather_rows, world_size


def pairs_of(modalities: Sequence[str]) -> list[tuple[str, str]]:
    """All unordered pairs, in the order of the names given."""
    return list(combinations(modalities, 2))


def symmetric_info_nce(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Mean of the two cross-entropies of CLIP (Radford et al. 2021) for matched (N, d) rows."""
    logits = scale * (a @ b.t())
    target = torch.arange(len(a), device=a.device)
    forth = functional.cross_entropy(logits, target)
    back = functional.cross_entropy(logits.t(), target)
    return (forth + back) / 2


def contrastive_loss(
    embeddings: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    scales: Mapping[tuple[str, str], Tensor],
) -> Tensor:
    """Sum over pairs of the symmetric InfoNCE on the samples that have both modalities.

    Args:
        embeddings: Modality → (N_m, d), L2-normalised, of the samples that have it.
        rows: Modality → (N_m,) ascending positions of those samples in the batch.
        scales: Pair → logit scale, one of its own for each pair, as in AudioCLIP.

    In distributed training, the samples of all ranks are told apart; see
    :mod:`multimem_ray.models.collectives`.

    Returns:
        Scalar; 0 (attached to the graph) when no pair has two samples in common.
    """
    apart = world_size() == 1
    total: Tensor | None = None
    for (first, second), scale in scales.items():
        if apart and (first not in embeddings or second not in embeddings):
            continue
        a, b = _common(embeddings, rows, first, second)
        if not apart:
            a, b = gather_rows(a, b)
        # A lone sample has nothing to be told apart from: its loss is 0 whatever the weights.
        if len(a) < 2:
            continue
        part = symmetric_info_nce(a, b, scale)
        total = part if total is None else total + part
    if total is None:
        return sum((e.sum() for e in embeddings.values()), torch.zeros(())) * 0.0
    return total


def _common(
    embeddings: Mapping[str, Tensor], rows: Mapping[str, Tensor], first: str, second: str
) -> tuple[Tensor, Tensor]:
    """Embeddings of the samples that have both, matched row by row."""
    if first not in embeddings or second not in embeddings:
        nothing = next(iter(embeddings.values()))[:0]
        return nothing.detach(), nothing.detach()
    a, b = embeddings[first], embeddings[second]
    if not torch.equal(rows[first], rows[second]):
        a = a[torch.isin(rows[first], rows[second])]
        b = b[torch.isin(rows[second], rows[first])]
    return a, b
