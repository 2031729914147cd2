"""The spanning forest against all pairs, thresholds, and the upper size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from multimem_ray.duplicates import groups
from multimem_ray.duplicates.groups import Forest

THRESHOLDS = (0.6, 0.8, 0.9)


def test_the_forest_has_the_groups_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_WAITING", 50)
    rng = np.random.default_rng(0)
    every = np.stack(np.triu_indices(60, 1), 1)
    chosen = every[rng.choice(len(every), 400, replace=False)]
    near = rng.uniform(0.6, 1, 400).astype(np.float32)
    forest = Forest(60, THRESHOLDS)
    for at in range(0, 400, 30):
        part = slice(at, at + 30)
        forest.add(chosen[part, 0], chosen[part, 1], near[part])
    for effect in forest.effects():
        kept = chosen[near >= np.float32(effect.threshold)]
        graph = coo_array((np.ones(len(kept)), (kept[:, 0], kept[:, 1])), (60, 60))
        sizes = np.bincount(connected_components(graph, directed=False)[1])
        sizes = sizes[sizes > 1]
        told = (effect.pairs, effect.groups, effect.largest, effect.samples)
        assert told == (len(kept), len(sizes), sizes.max(), sizes.sum())


def test_a_group_that_is_too_large_keeps_the_most_alike_together() -> None:
    forest = Forest(7, THRESHOLDS)
    one, other = np.array([0, 1, 2, 3, 5]), np.array([1, 2, 3, 4, 6])
    forest.add(one, other, np.array([0.99, 0.95, 0.91, 0.98, 0.92], np.float32))
    labels, refused = forest.groups(0.9, 3)
    assert refused == 1
    assert len({*labels[:3].tolist()}) == 1
    assert labels[3] == labels[4] != labels[0]
    assert labels[5] == labels[6]
    assert forest.groups(0.9, 5)[1] == 0


def test_no_pairs_are_no_groups() -> None:
    forest = Forest(3, THRESHOLDS)
    labels, refused = forest.groups(0.9, 2)
    assert (len(set(labels.tolist())), refused) == (3, 0)
    assert [effect.pairs for effect in forest.effects()] == [0, 0, 0]
