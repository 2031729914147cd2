"""Each attribute of a scene can be told from every modality: the picture, the clip and the tune."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from multimem_ray.demo.picture import draw_image, draw_video
from multimem_ray.demo.scene import CHOICES, Scene, draw_scene, perceive
from multimem_ray.demo.sound import play

SCENE = Scene("night", "star", "green", "dotted", "left", 2, "large")
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def image(scene: Scene) -> Array:
    pixels = Image.open(io.BytesIO(draw_image(scene, np.random.default_rng(0))))
    return np.asarray(pixels, dtype=np.float64) / 255


def video(scene: Scene) -> Array:
    with av.open(io.BytesIO(draw_video(scene, np.random.default_rng(0)))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.asarray(frames, dtype=np.float64) / 255


def sound(scene: Scene) -> Array:
    wave, _ = soundfile.read(io.BytesIO(play(scene, np.random.default_rng(0))))
    return np.asarray(wave, dtype=np.float64)


@pytest.mark.parametrize("sense", [image, video, sound])
@pytest.mark.parametrize("attribute", CHOICES)
def test_every_value_of_an_attribute_shows(sense: Callable[[Scene], Array], attribute: str) -> None:
    """With all chance held equal, two values of one attribute never give the same media."""
    media = [sense(replace(SCENE, **{attribute: value})) for value in CHOICES[attribute]]
    for one in range(len(media)):
        for two in range(one):
            assert np.abs(media[one] - media[two]).mean() > 0.002


def test_scenes_are_uniform_and_serialisable() -> None:
    rng = np.random.default_rng(1)
    scenes = [draw_scene(rng) for _ in range(800)]
    for name, values in CHOICES.items():
        counts = np.array([sum(getattr(s, name) == value for s in scenes) for value in values])
        assert np.abs(counts / 800 - 1 / len(values)).max() < 0.06
    assert Scene(**json.loads(json.dumps(scenes[0].as_dict()))) == scenes[0]


def test_a_noiseless_modality_sees_the_scene() -> None:
    rng = np.random.default_rng(2)
    assert perceive(SCENE, 0.0, rng) == SCENE
    assert any(perceive(SCENE, 0.5, rng) != SCENE for _ in range(5))
