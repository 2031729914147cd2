"""Linear probe, zero-shot and bootstrap against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize

from multimem_ray.evaluation import bootstrap_mean, linear_probe, zero_shot
from multimem_ray.evaluation.zero_shot import class_vectors, prompts


def clusters(spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.array(["cat", "dog", "owl"])[rng.integers(0, 3, 120)]
    centres = {name: rng.normal(size=8) for name in ("cat", "dog", "owl")}
    return np.stack([centres[n] + spread * rng.normal(size=8) for n in labels]), labels


def test_the_probe_is_cross_validated_logistic_regression() -> None:
    x, y = clusters(1.5)
    right = np.zeros(len(y))
    for train, test in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y):
        scale = StandardScaler().fit(x[train])
        model = LogisticRegression(max_iter=1000).fit(scale.transform(x[train]), y[train])
        right[test] = model.predict(scale.transform(x[test])) == y[test]
    found = linear_probe(x, y)
    assert found is not None
    assert found["value"] == pytest.approx(right.mean())
    assert found["classes"] == 3


def test_rare_labels_are_left_out_of_the_probe() -> None:
    x, y = clusters(0.1)
    y = y.copy()
    y[:2] = "gnu"
    found = linear_probe(x, y)
    assert found is not None
    assert found["classes"] == 3
    assert found["samples"] == 118
    assert linear_probe(x[:3], np.array(["a", "b", "c"])) is None


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


def test_the_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        found = bootstrap_mean((rng.random(80) < 0.3).astype(float), seed)
        covered += found.low <= 0.3 <= found.high
    assert 0.90 <= covered / 300 <= 0.98
    values = rng.normal(size=400)
    assert bootstrap_mean(values).se == pytest.approx(values.std() / 20, rel=0.1)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean(np.zeros(0))
