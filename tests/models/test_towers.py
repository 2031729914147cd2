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


def test_esresnext_hears_bands_as_colours() -> None:
    spec = Spec("series", (44100,), "int16", sample_rate=44100)
    tower = build_tower("audio", spec, 8, {"kind": "esresnext", "arch": "resnet18"})
    time = torch.arange(44100) / 44100
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (500.0, 10_000.0, 18_000.0)])
    features = tower.prepare((tones * 20_000).to(torch.int16))
    assert features.shape[:3] == (3, 3, 341)
    assert features.amax(dim=(2, 3)).argmax(dim=1).tolist() == [0, 1, 2]
    # A tone of amplitude A has a power of A²/4 times the window's sum squared over its square sum.
    window = tower.spectrogram.window
    level = 10 * torch.log10((20_000 / 32_768 / 2) ** 2 * window.sum() ** 2 / (window**2).sum())
    assert abs(features.amax() - level) < 1.0
    assert not any("window" in name for name in tower.state_dict())


def test_clips_towers_are_open_clips() -> None:
    import open_clip

    small = {"layers": 1, "width": 64}
    spec = Spec("image", (3, 32, 32), "uint8")
    tower = build_tower("image", spec, 16, {"kind": "clip_image", "patch_size": 16, **small})
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"image_size": 32, "patch_size": 16, **small}
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 2}
    theirs = open_clip.CLIP(**{**config, "embed_dim": 16})
    tower.visual.load_state_dict(theirs.visual.state_dict())
    picture = raw(spec, 2)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    expected = theirs.encode_image((picture / 255 - mean) / std)
    torch.testing.assert_close(tower(tower.prepare(picture)), expected, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1.0, 1e6, 1e30])
def test_a_signal_may_have_any_unit(unit: float) -> None:
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
