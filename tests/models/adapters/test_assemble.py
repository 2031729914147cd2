"""Towers of an adapter beside those that are built."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multimem_ray.config import ModelConfig
from multimem_ray.errors import ConfigError
from multimem_ray.modalities import registry
from multimem_ray.models.adapters import adapter
from multimem_ray.models.adapters.assemble import assemble
from multimem_ray.models.towers import Adapted, build_tower

IMAGE, TEXT, AUDIO = (registry.create(name) for name in ("image", "text", "audio"))


def assembled(tiny_arch: str, names: list[Any], **settings: Any) -> Adapted:
    config = ModelConfig.model_validate({"adapter": f"open_clip:{tiny_arch}", **settings})
    return assemble(config, names, weights=False)


def test_without_an_adapter_all_towers_are_built() -> None:
    towers = assemble(ModelConfig(dim=8), [IMAGE, TEXT], weights=True).towers
    assert list(towers) == ["image", "text"]


def test_what_the_adapter_lacks_is_built_and_the_order_is_that_of_the_run(tiny_arch: str) -> None:
    settings = adapter(f"open_clip:{tiny_arch}").describe().modalities
    pair = [registry.create(name, dict(settings[name])) for name in ("text", "image")]
    both = assembled(tiny_arch, pair, dim=24)
    made = assembled(tiny_arch, [AUDIO, *pair], dim=24, towers={"audio": {"width": 4}})
    assert list(made.towers) == ["audio", "text", "image"]
    assert type(made.towers["text"]) is type(both.towers["text"])
    assert type(made.towers["audio"]) is type(build_tower("audio", AUDIO.spec, 24, {"width": 4}))
    assert made.log_scale == both.log_scale
    audio = torch.zeros(2, *AUDIO.spec.shape, dtype=getattr(torch, AUDIO.spec.dtype))
    tower = made.towers["audio"].eval()
    assert tower(tower.prepare(audio)).shape == (2, 24)


def test_what_does_not_fit_is_named(tiny_arch: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.dim = 8: .* embeds in 24 dimensions"):
        assembled(tiny_arch, [IMAGE], dim=8)
