"""What arrays of a plugin's modality look like."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.modalities.base import Spec
from multimem_ray.report.thumbnails import HEIGHT, WIDTH, drawn


@pytest.mark.parametrize("shape", [(50,), (3, 50), (9, 20_000)])
def test_series_are_lines(shape: tuple[int, ...]) -> None:
    series = np.random.default_rng(0).normal(size=shape)
    series.flat[3] = np.nan
    picture = drawn(series, Spec("series", shape, "float64"))
    assert picture is not None
    assert picture.size == (WIDTH, HEIGHT)
    assert np.asarray(picture)[..., 3].any()


def test_pictures_are_pixels_over_their_own_range() -> None:
    depth = np.array([[[0.0, 5.0], [10.0, np.nan]]])
    picture = drawn(depth, Spec("image", (1, 2, 2), "float32"))
    assert picture is not None
    assert np.asarray(picture)[..., 0].tolist() == [[0, 127], [255, 0]]
    grey = np.full((3, 2, 2), 7, np.uint8)
    whole = drawn(grey, Spec("image", (3, 2, 2), "uint8"))
    assert whole is not None
    assert (np.asarray(whole) == 7).all()


def test_a_clip_is_a_strip_of_four() -> None:
    strip = drawn(np.zeros((9, 3, 5, 6), np.uint8), Spec("frames", (9, 3, 5, 6), "uint8"))
    assert strip is not None
    assert strip.size == (4 * 6, 5)


def test_tokens_and_odd_channels_have_no_look() -> None:
    assert drawn(np.zeros(4, np.int32), Spec("tokens", (4,), "int32", vocab=9)) is None
    assert drawn(np.zeros((5, 2, 2)), Spec("image", (5, 2, 2), "float32")) is None
