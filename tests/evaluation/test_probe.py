"""The linear probe against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from multimem_ray.evaluation import linear_probe


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
