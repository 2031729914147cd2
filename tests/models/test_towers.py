"""Towers follow the shape of a modality's arrays, not its name."""

from __future__ import annotations

import pytest
import torch

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import build_tower

SPECS = [
    Spec("image", (3, 32, 32), "uint8"),
    Spec("image", (1, 20, 45), "float32"),
    Spec("series", (8000,), "int16", sample_rate=8000),
    Spec("series", (6, 100), "float32"),
    Spec("frames", (4, 3, 32, 24), "uint8"),
    Spec("tokens", (12,), "int32", vocab=50),
]


def raw(spec: Spec, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if spec.kind == "tokens":
        return torch.randint(0, 50, (rows, *spec.shape), generator=generator, dtype=torch.int32)
    if spec.dtype == "float32":
        return torch.randn(rows, *spec.shape, generator=generator)
    top = {"uint8": 255, "int16": 20_000}[spec.dtype]
    values = torch.randint(0, top, (rows, *spec.shape), generator=generator)
    return values.to(getattr(torch, spec.dtype))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.kind}{s.shape}")
def test_a_row_is_embedded_the_same_in_any_batch(spec: Spec) -> None:
    torch.manual_seed(0)
    tower = build_tower("thing", spec, 16, {}).eval()
    values = raw(spec, 7)
    whole = tower(tower.prepare(values))
    assert whole.shape == (7, 16)
    parts = torch.cat([tower(tower.prepare(values[:3])), tower(tower.prepare(values[3:]))])
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)
    assert whole.std(dim=0).min() > 0, "different inputs must have different embeddings"


def test_padding_of_tokens_changes_nothing() -> None:
    tower = build_tower("text", Spec("tokens", (6,), "int32", vocab=9), 4, {})
    some = torch.tensor([[3, 4, 0, 0, 0, 0]], dtype=torch.int32)
    with torch.no_grad():
        before = tower(tower.prepare(some))
        tower.token.weight[0] += 5.0
        torch.testing.assert_close(tower(tower.prepare(some)), before)


def test_preparing_keeps_the_input() -> None:
    for spec in SPECS:
        values = raw(spec, 2)
        copy = values.clone()
        build_tower("thing", spec, 8, {}).prepare(values)
        assert torch.equal(values, copy), spec


def test_unknown_kind_and_option_name_their_field() -> None:
    spec = SPECS[0]
    with pytest.raises(ConfigError, match=r"model\.towers\.depth\.kind: unknown 'imag'; did you"):
        build_tower("depth", spec, 8, {"kind": "imag"})
    with pytest.raises(ConfigError, match=r"model\.towers\.depth: .*widht"):
        build_tower("depth", spec, 8, {"widht": 3})
