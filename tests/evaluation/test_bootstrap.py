"""Bootstrap intervals cover what they say."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.evaluation import bootstrap_mean


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
