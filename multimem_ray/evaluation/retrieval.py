"""Cross-modal retrieval: recall at k for every direction, and for joint queries.

A query finds its sample if the sample's other modality is among the k nearest of the gallery by
cosine. Equal texts have equal embeddings; a query cannot tell them apart, so ties are broken at
random in expectation: with g gallery items nearer than the right one and t at its distance (itself
included), the query counts as found with probability min(max((k − g) / t, 0), 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from multimem_ray.evaluation.bootstrap import bootstrap_mean

KS = (1, 5, 10)
_TIE = 1e-6
_ROWS = 1024


def recall_hits(queries: Tensor, gallery: Tensor, ks: Sequence[int] = KS) -> NDArray[np.float64]:
    """Probability of each query to find its own row of the gallery among the k nearest.

    Args:
        queries: (N, d), L2-normalised.
        gallery: (N, d), L2-normalised; row i is what query i looks for.

    Returns:
        (N, len(ks)), in [0, 1]. Memory is that of 1,024 × N similarities.

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
    hits: NDArray[np.float64] = torch.cat(found).numpy() if found else np.zeros((0, len(ks)))
    return hits


def joint_query(embeddings: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Several modalities as one query: their normalised sum, (N, d)."""
    return normalize(torch.stack([embeddings[name] for name in names]).sum(0), dim=-1)


def retrieval(
    embeddings: Mapping[str, Tensor],
    present: Mapping[str, NDArray[np.bool_]],
    ks: Sequence[int] = KS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Recall at k for every direction between modalities and every joint query.

    Args:
        embeddings: Modality → (N, d), L2-normalised; rows of absent ones are ignored.
        present: Modality → (N,).
        seed: Of the bootstrap.

    Returns:
        One entry per direction: ``query`` (names), ``target``, ``samples`` and ``recall``, a
        mapping from k to an estimate. Directions with fewer than two samples are left out.
    """
    names = sorted(embeddings)
    directions: list[tuple[tuple[str, ...], str]] = [((a,), b) for a, b in permutations(names, 2)]
    for target in names:
        others = [name for name in names if name != target]
        for size in range(2, len(others) + 1):
            directions += [(query, target) for query in combinations(others, size)]
    results = []
    for query, target in directions:
        both = np.logical_and.reduce([present[name] for name in (*query, target)])
        if both.sum() < 2:
            continue
        rows = torch.from_numpy(np.flatnonzero(both))
        chosen = {name: embeddings[name][rows] for name in (*query, target)}
        asked = joint_query(chosen, query) if len(query) > 1 else chosen[query[0]]
        hits = recall_hits(asked, chosen[target], ks)
        recall = {str(k): bootstrap_mean(hits[:, i], seed).as_dict() for i, k in enumerate(ks)}
        results.append(
            {"query": list(query), "target": target, "samples": int(both.sum()), "recall": recall}
        )
    return results
