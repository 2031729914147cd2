"""Directions and joint queries, on the samples that have what they ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from multimem_ray.evaluation import joint_query, retrieval
from multimem_ray.metric import recall_hits


def vectors(rows: int, seed: int, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator), dim=-1)


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
    assert recall["value"] == pytest.approx(float(hits.mean()))
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
