"""Series of any unit and level."""

from __future__ import annotations

import pytest
import torch

from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import build_tower


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1.0, 1e6, 1e30])
def test_a_signal_may_have_any_unit(unit: float) -> None:
    torch.manual_seed(0)
    tower = build_tower("x", Spec("series", (2, 90), "float32"), 8, {})
    series = (9.81 + torch.randn(5, 2, 90)) * unit
    features = tower.prepare(series)
    assert features.isfinite().all()
    assert features.abs().max() < 200
    assert tower(features).std(0).min() > 1e-4
    level = tower.prepare(series + 100 * unit)
    assert unit < 1e-3 or not torch.allclose(level[:, 2:4], features[:, 2:4])


def test_a_constant_signal_is_finite() -> None:
    tower = build_tower("x", Spec("series", (40,), "int16"), 8, {})
    features = tower.prepare(torch.full((2, 40), 7, dtype=torch.int16))
    assert features.isfinite().all()
