"""Pixels to zero mean and unit variance; towers know the arrays they are made for."""

from __future__ import annotations

import pytest
import torch

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import Normalize, Tower, require

PICTURE = Spec("image", (3, 2, 2), "uint8")


def test_channels_are_normalized() -> None:
    raw = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    normal = Normalize(PICTURE, (1.0, 0.5, 0.0), (1.0, 0.5, 0.25))(raw)
    assert normal[0, :, 0, 0].tolist() == [0.0, 1.0, 4.0]
    assert raw.dtype == torch.uint8


def test_arrays_of_another_kind_are_refused() -> None:
    require(PICTURE, "image", "clip_image")
    with pytest.raises(ConfigError, match="'clip_text' takes arrays of kind 'tokens'"):
        require(PICTURE, "tokens", "clip_text")


def test_a_tower_prepares_nothing_unless_it_says_so() -> None:
    values = torch.ones(2, 3)
    assert Tower().prepare(values) is values
    with pytest.raises(NotImplementedError):
        Tower()(values)
