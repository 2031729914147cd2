"""Cross-modal retrieval: recall at k for every direction, and for joint queries.

A query finds its sample if the sample's other modality is among the k nearest of the gallery by
cosine; see :mod:`multimem_ray.metric.recall` for ties.
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
from multimem_ray.metric import recall_hits

KS = (1, 5, 10)


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
        hits = recall_hits(asked, chosen[target], ks).numpy()
        recall = {str(k): bootstrap_mean(hits[:, i], seed).as_dict() for i, k in enumerate(ks)}
        results.append(
            {"query": list(query), "target": target, "samples": int(both.sum()), "recall": recall}
        )
    return results
