"""Pairs found cell by cell: none twice, and those of all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimem_ray.duplicates import pairs
from multimem_ray.duplicates.pairs import near_pairs, similarity
from multimem_ray.duplicates.vectors import Vectors, VectorWriter


def stored(folder: Path, values: np.ndarray) -> Vectors:
    writer = VectorWriter(folder, {"image": values.shape[1:]})
    writer.add([str(n) for n in range(len(values))], [None] * len(values), {"image": values})
    return writer.close()


def pairs_of(vectors: Vectors, floor: float) -> list[tuple[int, int]]:
    rows = np.arange(len(vectors))
    found = [
        (min(i, j), max(i, j))
        for one, other, _ in near_pairs(vectors, rows, floor)
        for i, j in zip(one.tolist(), other.tolist(), strict=True)
    ]
    assert len(found) == len(set(found))
    return sorted(found)


@pytest.fixture
def vectors(tmp_path: Path) -> Vectors:
    rng = np.random.default_rng(1)
    bases = rng.standard_normal((900, 1, 16))
    copies = bases[:300] + 0.1 * rng.standard_normal((300, 1, 16))
    return stored(tmp_path, np.concatenate([bases, copies]))


def test_cells_find_the_pairs_of_all_pairs_once(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = pairs_of(vectors, 0.9)
    views = vectors.views("image", np.arange(1200))[:, 0]
    near = np.argwhere(np.triu(views @ views.T >= 0.9, 1))
    assert exact == [tuple(pair) for pair in near.tolist()]
    monkeypatch.setattr(pairs, "EXACT", 100)
    monkeypatch.setattr(pairs, "CELL", 60)
    monkeypatch.setattr(pairs, "_BLOCK", 32)
    found = pairs_of(vectors, 0.9)
    assert set(found) <= set(exact)
    assert len(found) >= 0.98 * len(exact) > 290
    assert pairs_of(vectors, 0.9) == found


def test_the_best_view_counts_and_a_lacking_modality_does_not() -> None:
    axes = np.eye(3, dtype=np.float32)
    one = {"image": np.stack([axes[:2]]), "audio": axes[None, :1]}
    other = {
        "image": np.stack([axes[[1, 2]], axes[[2, 0]]]),
        "audio": np.stack([axes[:1], 0 * axes[:1]]),
    }
    # A crop of one is the whole of the first; the whole of one is a crop of the second.
    assert np.allclose(similarity(one, other), [[1.0, 1.0]])
