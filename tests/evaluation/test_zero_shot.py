"""Zero-shot classification by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from multimem_ray.evaluation import zero_shot
from multimem_ray.evaluation.zero_shot import class_vectors, prompts


def test_zero_shot_takes_the_nearest_class() -> None:
    vectors = normalize(torch.eye(3, 4), dim=-1)
    features = normalize(torch.tensor([[9.0, 1, 0, 0], [0, 1, 2, 0], [1, 3, 0, 9]]), dim=-1)
    found = zero_shot(features, np.array(["a", "c", "a"]), ["a", "b", "c"], vectors)
    assert found["value"] == pytest.approx(2 / 3)
    assert found["chance"] == pytest.approx(1 / 3)


def test_class_vectors_average_the_prompts() -> None:
    embedded = normalize(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    expected = normalize(embedded.mean(1), dim=-1)
    torch.testing.assert_close(class_vectors(embedded), expected)
    assert prompts("glass_breaking", ["a {}"]) == ["a glass breaking"]
