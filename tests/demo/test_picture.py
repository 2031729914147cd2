"""Pictures and clips show what the scene says."""

from __future__ import annotations

import io

import av
import numpy as np
from PIL import Image

from multimem_ray.demo.picture import draw_image, draw_video
from multimem_ray.demo.scene import Scene

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def image(scene: Scene) -> Array:
    pixels = Image.open(io.BytesIO(draw_image(scene, np.random.default_rng(0))))
    return np.asarray(pixels, dtype=np.float64) / 255


def video(scene: Scene) -> Array:
    with av.open(io.BytesIO(draw_video(scene, np.random.default_rng(0)))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.asarray(frames, dtype=np.float64) / 255


def test_colour_is_what_it_says() -> None:
    for colour, channel in (("red", 0), ("green", 1), ("blue", 2)):
        scene = Scene("night", "square", colour, "plain", "pulsing", 4, "large")
        for pixels in (image(scene), video(scene)):
            means = pixels.reshape(-1, 3).mean(0)
            assert means.argmax() == channel


def test_a_clip_moves_the_way_it_says() -> None:
    frames = video(Scene("night", "circle", "yellow", "plain", "right", 1, "small"))
    centres = [np.average(np.arange(64), weights=(frame[..., 0] > 0.7).sum(0)) for frame in frames]
    assert np.all(np.diff(centres) > 0)
