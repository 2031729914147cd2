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


def test_a_tower_of_another_kind_of_array_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.towers\.image: kind 'clip_text' takes .*tokens"):
        build_tower("image", SPECS[0], 8, {"kind": "clip_text"})
    with pytest.raises(ConfigError, match="no architecture 'ViT-B-23'; did you mean 'ViT-B-32'"):
        build_tower("image", SPECS[0], 8, {"kind": "clip_image", "arch": "ViT-B-23"})
    frames = Spec("frames", (4, 3, 32, 32), "uint8")
    with pytest.raises(ConfigError, match="no video model 'r3d'"):
        build_tower("video", frames, 8, {"kind": "torchvision_video", "arch": "r3d"})


def test_a_series_that_is_no_sound_gets_the_signal_tower() -> None:
    for rate, expected in ((None, "SignalTower"), (50, "SignalTower"), (8000, "SeriesTower")):
        tower = build_tower("x", Spec("series", (2, 90), "float32", sample_rate=rate), 8, {})
        assert type(tower).__name__ == expected
    slow = Spec("series", (2, 90), "float32", sample_rate=20)
    heard = build_tower("x", slow, 8, {"kind": "series"}).eval()
    assert heard(heard.prepare(torch.randn(3, 2, 90))).isfinite().all()
