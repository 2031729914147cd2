"""Recall at k of a query among a gallery, with ties broken at random in expectation.

Equal texts have equal embeddings, and a query cannot tell them apart: with g gallery items nearer
than the right one and t at its distance (itself included), the query counts as found among the k
nearest with probability min(max((k − g) / t, 0), 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TIE = 1e-6
_ROWS = 1024


def recall_hits(queries: Tensor, gallery: Tensor, ks: Sequence[int]) -> Tensor:
    """Probability of each query to find its own row of the gallery among the k nearest.

    Args:
        queries: (N, d), L2-normalised.
        gallery: (N, d), L2-normalised; row i is what query i looks for.

    Returns:
        (N, len(ks)) float64 on the CPU, in [0, 1]. Memory is that of 1,024 × N similarities.

    Raises:
        ValueError: The shapes differ.
    """
    if queries.shape != gallery.shape or queries.ndim != 2:
        raise ValueError(f"queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)}")
    wanted = torch.tensor(list(ks), device=queries.device)
    found = []
    for start in range(0, len(queries), _ROWS):
        similar = queries[start : start + _ROWS] @ gallery.t()
        rows = torch.arange(len(similar), device=similar.device)
        own = similar[rows, rows + start].unsqueeze(1)
        nearer = (similar > own + _TIE).sum(1, keepdim=True)
        equal = ((similar - own).abs() <= _TIE).sum(1, keepdim=True)
        found.append(((wanted - nearer) / equal).clamp(0.0, 1.0).double().cpu())
    return torch.cat(found) if found else torch.zeros(0, len(ks), dtype=torch.float64)
