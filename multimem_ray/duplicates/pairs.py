"""Pairs of samples that are near each other, found cell by cell.

Samples are dealt to cells by the nearest centroid of their whole views (k-means), and each is
compared, in all views, with those of the few cells that lie nearest to it. Each pair is told once.
Up to ``EXACT`` samples there is one cell, and every pair is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from multimem_ray.duplicates.vectors import Floats, Rows, Vectors

EXACT = 20_000
CELL = 1_000
"""Samples of a cell, on average."""

PROBES = 4
"""Cells in which a sample is compared."""

_BLOCK = 1024
_ASSIGNED = 16_384
_TRAINED = 40  # samples per centroid; faiss asks for 39 at least

Pairs: TypeAlias = tuple[Rows, Rows, Floats]


def near_pairs(vectors: Vectors, rows: Rows, floor: float, seed: int = 0) -> Iterator[Pairs]:
    """Pairs of samples with a similarity of at least ``floor``, each once.

    Args:
        rows: Samples that are compared.
        floor: See :func:`similarity`.
        seed: Of the k-means.

    Yields:
        Rows of the first and the second of some pairs, and their similarities.
    """
    probes = _probes(vectors, rows, seed)
    order = np.argsort(probes.ravel(), kind="stable")
    cells = probes.ravel()[order]
    bounds = np.flatnonzero(np.diff(cells, prepend=-1, append=-1))
    for first, end in pairwise(bounds.tolist()):
        visitors, rank = np.divmod(order[first:end], probes.shape[1])
        members = visitors[rank == 0]
        for start in range(0, len(members), _BLOCK):
            block = members[start : start + _BLOCK]
            theirs = _views(vectors, rows[block])
            for at in range(0, len(visitors), _BLOCK):
                asked = visitors[at : at + _BLOCK]
                near = similarity(_views(vectors, rows[asked]), theirs)
                i, j = np.divmod(np.flatnonzero(near.ravel() >= floor), len(block))
                told = _told_here(probes, int(cells[first]), asked[i], block[j])
                i, j = i[told], j[told]
                yield rows[asked[i]], rows[block[j]], near[i, j]


def similarity(one: Mapping[str, Floats], other: Mapping[str, Floats]) -> Floats:
    """(A, B) how alike samples are: the mean over modalities of the best cosine of any view of one
    with the whole of the other. Modalities that one of two lacks do not count.

    Args:
        one, other: Modality to (A, V, d) and (B, V, d), the whole view first.
    """
    best = []
    for name, ours in one.items():
        theirs = other[name]
        best.append(_best(ours, theirs[:, 0]))
        if ours.shape[1] > 1:
            best[-1] = np.maximum(best[-1], _best(theirs, ours[:, 0]).T)
    near = best[0]
    if len(best) > 1:
        near = np.sum(best, 0)
        near /= np.maximum(_present(one) @ _present(other).T, 1)
    return near


def _present(side: Mapping[str, Floats]) -> Floats:
    """(A, n) 1 where a sample has a modality, else 0."""
    return np.stack([views[:, 0].any(1) for views in side.values()], 1).astype(np.float32)


def _best(views: Floats, whole: Floats) -> Floats:
    """(A, B) from (A, V, d) and (B, d)."""
    size, number, dim = views.shape
    cosines: Floats = (views.reshape(-1, dim) @ whole.T).reshape(size, number, len(whole))
    return cosines[:, 0] if number == 1 else cosines.max(1)


def _views(vectors: Vectors, rows: Rows) -> dict[str, Floats]:
    return {name: vectors.views(name, rows) for name in vectors.shapes}


def _probes(vectors: Vectors, rows: Rows, seed: int) -> NDArray[np.int32]:
    """(N, P) the nearest cells of each, nearest first."""
    if len(rows) <= EXACT:
        return np.zeros((len(rows), 1), np.int32)
    number = len(rows) // CELL
    drawn = np.random.default_rng(seed).choice(
        len(rows), min(len(rows), _TRAINED * number), replace=False
    )
    kmeans = faiss.Kmeans(vectors.width, number, niter=8, seed=seed + 1, spherical=True)
    kmeans.train(vectors.whole(rows[np.sort(drawn)]))
    probes = np.empty((len(rows), PROBES), np.int32)
    for at in range(0, len(rows), _ASSIGNED):
        block = vectors.whole(rows[at : at + _ASSIGNED])
        probes[at : at + len(block)] = kmeans.index.search(block, PROBES)[1]
    return probes


def _told_here(
    probes: NDArray[np.int32], cell: int, visitor: Rows, member: Rows
) -> NDArray[np.bool_]:
    """Whether a pair is told in this cell, which is the member's home.

    It is met again in the visitor's home, if the member visits that one; the lower cell tells it.
    """
    home = probes[visitor, 0]
    again = (probes[member] == home[:, None]).any(1)
    told: NDArray[np.bool_] = np.where(home == cell, visitor < member, ~again | (home > cell))
    return told
