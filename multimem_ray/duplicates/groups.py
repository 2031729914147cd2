"""From pairs to groups: whoever is near a sample of a group belongs to it.

Of all pairs a spanning forest of the nearest is kept: its trees, cut at any threshold, are the
groups of all pairs at that threshold. Memory holds that and the pairs that came since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from multimem_ray.duplicates.vectors import Floats, Rows

_WAITING = 4_000_000
_FARTHEST = np.float32(2.0)  # weights of a sparse graph are above 0: 2 less the similarity


@dataclass(frozen=True)
class Effect:
    """What a threshold makes of the samples.

    Args:
        threshold: Similarity from which two samples are a pair.
        pairs: Number of pairs.
        groups: Connected groups of two samples or more.
        largest: Samples of the largest.
        samples: Samples in groups.
    """

    threshold: float
    pairs: int
    groups: int
    largest: int
    samples: int

    def as_json(self) -> dict[str, Any]:
        """As a row of a table."""
        return asdict(self)


class Forest:
    """The nearest of all pairs that connect what all pairs connect.

    Args:
        samples: Number of samples N.
        thresholds: At which pairs are counted, ascending.
    """

    def __init__(self, samples: int, thresholds: Sequence[float]) -> None:
        self._samples, self.thresholds = samples, np.asarray(thresholds, np.float32)
        self._pairs = np.zeros(len(thresholds), np.int64)
        self._one = self._other = np.empty(0, np.int64)
        self._near = np.empty(0, np.float32)
        self._waiting: list[tuple[Rows, Rows, Floats]] = []

    def add(self, one: Rows, other: Rows, near: Floats, count: NDArray[Any] | int = 1) -> None:
        """The next pairs, none of which came before.

        Args:
            count: How many pairs of samples each of them stands for.
        """
        reached = np.searchsorted(self.thresholds, near, side="right")
        counts = np.bincount(
            reached, np.broadcast_to(count, near.shape), minlength=len(self.thresholds) + 1
        )
        self._pairs += counts[:0:-1].cumsum()[::-1].astype(np.int64)
        self._waiting.append((one, other, near))
        if sum(len(pairs[0]) for pairs in self._waiting) >= _WAITING:
            self._reduce()

    def effects(self) -> list[Effect]:
        """What each threshold makes of the samples."""
        self._reduce()
        found = []
        for threshold, pairs in zip(self.thresholds, self._pairs.tolist(), strict=True):
            near = self._near >= threshold
            sizes = np.bincount(self._connected(near))
            sizes = sizes[sizes > 1]
            largest = int(sizes.max(initial=0))
            at = round(float(threshold), 6)
            found.append(Effect(at, pairs, len(sizes), largest, int(sizes.sum())))
        return found

    def groups(self, threshold: float, most: int) -> tuple[NDArray[np.int64], int]:
        """(N,) number of each sample's group, and how many joins the upper size forbade.

        Nearest first: of a group that would be too large, those stay together that are most alike.

        Args:
            most: Samples of the largest group.
        """
        self._reduce()
        near = self._near >= np.float32(threshold)
        labels = self._connected(near)
        sizes = np.bincount(labels, minlength=self._samples)
        if sizes.max(initial=0) <= most:
            return labels, 0
        large = near & (sizes[labels[self._one]] > most)
        at = np.flatnonzero(large)
        at = at[np.lexsort((self._other[at], self._one[at], -self._near[at]))]
        parent: dict[int, int] = {}
        size: dict[int, int] = {}
        kept = near & ~large
        for edge in at.tolist():
            one = _root(parent, int(self._one[edge]))
            other = _root(parent, int(self._other[edge]))
            joined = size.get(one, 1) + size.get(other, 1)
            if joined <= most:
                parent[one], size[other] = other, joined
                kept[edge] = True
        return self._connected(kept), len(at) - int(kept[at].sum())

    def _connected(self, edges: NDArray[np.bool_]) -> NDArray[np.int64]:
        one, other = self._one[edges], self._other[edges]
        shape = (self._samples, self._samples)
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape)
        labels: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
        return labels

    def _reduce(self) -> None:
        parts = [(self._one, self._other, self._near), *self._waiting]
        one, other, near = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._waiting = []
        # Only the samples that have a pair are numbered: a graph costs its nodes, too.
        nodes, at = np.unique(np.concatenate([one, other]), return_inverse=True)
        first, second = at[: len(one)], at[len(one) :]
        weights = _FARTHEST - near
        graph = coo_array((weights, (first, second)), (len(nodes), len(nodes)))
        tree = minimum_spanning_tree(graph.tocsr()).tocoo()
        self._one, self._other = nodes[tree.row], nodes[tree.col]
        self._near = (_FARTHEST - tree.data).astype(np.float32)


def _root(parent: dict[int, int], node: int) -> int:
    root = node
    while parent.get(root, root) != root:
        root = parent[root]
    while parent.get(node, node) != root:
        parent[node], node = root, parent[node]
    return root
