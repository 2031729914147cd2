"""Shapes, and what a look does not change with."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.demo.dataset import make_sample
from multimem_ray.duplicates.looks import LOOKS, clip, picture, sound
from multimem_ray.modalities import registry


@pytest.mark.parametrize("length", [1, 100, 8000])
def test_any_length_of_sound_has_its_shape(length: int) -> None:
    values = np.random.default_rng(0).integers(-9000, 9000, length).astype(np.int16)
    look = sound(values, 8000)
    assert look.shape == LOOKS["audio"][1]
    assert np.isfinite(look).all()


@pytest.mark.parametrize("side", [1, 7, 80])
def test_any_size_of_picture_has_its_shape(side: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    assert picture(values).shape == LOOKS["image"][1]
    film = np.stack([255 - values, values, 255 - values]).transpose(0, 3, 1, 2)[:, None]
    assert (clip(film) == picture(values)).all()


def test_what_the_modalities_decode_has_looks() -> None:
    sample = make_sample(0, 1)
    for name, extension in (("audio", "flac"), ("image", "jpg"), ("video", "mp4")):
        modality = registry.create(name)
        look, shape = LOOKS[name]
        found = look(modality.decode(sample[extension]), modality.spec.sample_rate or 8000)
        assert found.shape == shape
        assert found.any(1).all()


def test_brightness_and_loudness_change_nothing() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(50, 150, (64, 64, 3), np.uint8)
    assert np.allclose(picture(values)[0], picture(values + np.uint8(40))[0], atol=8)
    tone = rng.integers(-4000, 4000, 8000).astype(np.int16)
    assert np.allclose(sound(tone, 8000), sound(4 * tone, 8000), atol=1e-2)
