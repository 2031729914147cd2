"""Recall at k against a plain ranking, ties in expectation, joint queries, missing modalities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from multimem_ray.evaluation import joint_query, recall_hits, retrieval


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
        assert (hits[:, column] != (place < k)).sum() <= 3


def test_a_perfect_model_finds_everything() -> None:
    both = vectors(50, 0, 32)
    assert (recall_hits(both, both, (1,)) == 1).all()


def test_equal_texts_share_their_chance() -> None:
    texts = vectors(2, 3)[[0, 0, 0, 0, 1, 1]]
    hits = recall_hits(texts, texts, (1, 2, 4))
    np.testing.assert_allclose(hits[0], [1 / 4, 2 / 4, 1])
    np.testing.assert_allclose(hits[5], [1 / 2, 1, 1])


def test_every_direction_and_joint_query_on_the_samples_that_have_them() -> None:
    embedded = {name: vectors(20, i) for i, name in enumerate(("audio", "image", "text"))}
    present = {name: np.ones(20, dtype=bool) for name in embedded}
    present["image"][:8] = False
    found = {(tuple(r["query"]), r["target"]): r for r in retrieval(embedded, present, (1, 5))}
    assert len(found) == 9
    assert found[("audio",), "text"]["samples"] == 20
    assert found[("audio", "image"), "text"]["samples"] == 12
    recall = found[("audio",), "image"]["recall"]["5"]
    hits = recall_hits(embedded["audio"][8:], embedded["image"][8:], (5,))
    assert recall["value"] == pytest.approx(hits.mean())
    assert recall["low"] <= recall["value"] <= recall["high"]


def test_a_joint_query_knows_more_than_its_parts() -> None:
    target = vectors(300, 0, 16)
    noisy = {
        name: normalize(
            target + 0.6 * torch.randn(300, 16, generator=torch.Generator().manual_seed(s)), dim=-1
        )
        for name, s in (("a", 1), ("b", 2))
    }
    alone = recall_hits(noisy["a"], target, (1,)).mean()
    assert recall_hits(joint_query(noisy, ("a", "b")), target, (1,)).mean() > alone + 0.05
