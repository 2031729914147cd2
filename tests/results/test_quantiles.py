from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.results.quantiles import QuantileSketch


def test_exact_while_small() -> None:
    sketch = QuantileSketch()
    sketch.update(np.array([3.0, np.nan, 1.0, 2.0, 2.0]))
    assert sketch.exact
    assert sketch.rank_error == 0
    assert sketch.count == 4
    assert sketch.quantiles([0.0, 0.5, 1.0]) == [1.0, 2.0, 3.0]
    got = sketch.percentiles(np.array([2.0, 0.0, np.nan, 3.0, 2.0]))
    np.testing.assert_allclose(got, [50.0, 0.0, np.nan, 87.5, 50.0])


def test_merged_sketches_stay_within_the_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 10_000))
    whole = QuantileSketch()
    for part in values:
        sketch = QuantileSketch()
        sketch.update(part)
        whole.merge(QuantileSketch.from_bytes(sketch.to_bytes()))
    assert whole.count == values.size
    assert not whole.exact
    ranks = np.array([0.001, 0.1, 0.5, 0.99])
    found = np.array([(values <= q).mean() for q in whole.quantiles(list(ranks))])
    assert whole.rank_error < 0.002
    np.testing.assert_allclose(found, ranks, atol=2 * whole.rank_error)


def test_empty() -> None:
    sketch = QuantileSketch()
    assert sketch.quantiles([0.5]) == []
    assert np.isnan(sketch.percentiles(np.array([1.0]))).all()
    sketch.update(np.array([np.nan]))
    assert sketch.count == pytest.approx(0)
