"""The matrices of :mod:`multimem_ray.metric.agreement` from vectors as they lie in memory.

Stored vectors come as one block of numbers per modality, of whatever length. Rather than to copy
and normalise them, their dot products are divided by their lengths:

    alignment[j, k]  = E_v [ x_j · x_k / (|x_j| |x_k|) ]
    uniformity[j, k] = E_v [ x_j · m_k / |x_j| ]

Products are taken in float32, where reading from memory is what limits them, and everything after
in float64; for normalised float32 vectors of 1024 numbers that is within 1e-6 of float64
throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StoredAgreement:
    """Matrices of B samples under one model, as yet with nothing masked.

    Attributes:
        alignment: (B, n, n) float64.
        uniformity: (B, n, n) float64.
        lengths: (B, n) float64, the shortest |x| of the views; NaN or 0 where one is of no use.
    """

    alignment: NDArray[np.float64]
    uniformity: NDArray[np.float64]
    lengths: NDArray[np.float64]


def stored_agreement(
    found: Sequence[NDArray[np.float32]], views: int, means: NDArray[Any]
) -> StoredAgreement:
    """Agreement of stored vectors.

    Args:
        found: Per modality (B, V * d), view after view.
        means: (n, at least d), held-out mean vectors of the model; beyond d they are padding.
    """
    size, n = len(found[0]), len(found)
    dim = found[0].shape[1] // views
    seen = [np.ascontiguousarray(x).reshape(size * views, dim) for x in found]
    towards = np.ascontiguousarray(means[:, :dim], dtype=np.float32)
    alignment = np.ones((size, n, n))
    uniformity = np.empty((size, n, n))
    lengths = np.empty((size, n))
    with np.errstate(all="ignore"):
        inverse = []
        for j, x in enumerate(seen):
            length = np.sqrt(np.vecdot(x, x).astype(np.float64))
            lengths[:, j] = length.reshape(size, views).min(axis=1)
            inverse.append(1.0 / length)
        for j, x in enumerate(seen):
            for k in range(n):
                cosine = np.vecdot(x, towards[k]) * inverse[j]
                uniformity[:, j, k] = cosine.reshape(size, views).mean(axis=1)
            for k in range(j + 1, n):
                cosine = np.vecdot(x, seen[k]) * inverse[j] * inverse[k]
                alignment[:, j, k] = alignment[:, k, j] = cosine.reshape(size, views).mean(axis=1)
    return StoredAgreement(alignment, uniformity, lengths)
