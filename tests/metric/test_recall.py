"""Recall at k against a plain ranking, with ties in expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from multimem_ray.metric import recall_hits


def vectors(rows: int, seed: int, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator), dim=-1)


def test_hits_are_those_of_a_plain_ranking() -> None:
    queries, gallery = vectors(1500, 0), vectors(1500, 1)
    hits = recall_hits(queries, gallery, (1, 5, 10))
    order = np.argsort(-(queries.double() @ gallery.double().t()).numpy(), axis=1)
    place = (order == np.arange(1500)[:, None]).argmax(axis=1)
    for column, k in enumerate((1, 5, 10)):
        # Float rounding may swap neighbours in a handful of rows.
        assert (hits[:, column].numpy() != (place < k)).sum() <= 3


def test_a_perfect_model_finds_everything() -> None:
    both = vectors(50, 0, 32)
    assert (recall_hits(both, both, (1,)) == 1).all()


def test_equal_texts_share_their_chance() -> None:
    texts = vectors(2, 3)[[0, 0, 0, 0, 1, 1]]
    hits = recall_hits(texts, texts, (1, 2, 4))
    np.testing.assert_allclose(hits[0], [1 / 4, 2 / 4, 1])
    np.testing.assert_allclose(hits[5], [1 / 2, 1, 1])


def test_by_hand() -> None:
    a = torch.eye(3)
    assert recall_hits(a, a.roll(1, 0), [1]).mean() == 0
    assert float(recall_hits(a, torch.eye(3)[[0, 2, 1]], [1]).mean()) == pytest.approx(1 / 3)


def test_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="queries"):
        recall_hits(vectors(3, 0), vectors(4, 0), [1])
