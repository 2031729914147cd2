"""The tune has a property for each attribute."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from multimem_ray.demo.scene import Scene
from multimem_ray.demo.sound import play

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def sound(scene: Scene) -> Array:
    wave, _ = soundfile.read(io.BytesIO(play(scene, np.random.default_rng(0))))
    return np.asarray(wave, dtype=np.float64)


def test_size_is_the_register_of_the_tune() -> None:
    def pitch(size: str) -> float:
        wave = sound(Scene("sea", "square", "red", "plain", "left", 1, size))
        return float(np.abs(np.fft.rfft(wave)).argmax())

    assert pitch("large") < 0.6 * pitch("medium") < 0.36 * pitch("small") * 1.05
