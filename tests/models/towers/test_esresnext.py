"""AudioCLIP's tower: bands of sound in the place of colours."""

from __future__ import annotations

import torch

from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import build_tower


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
