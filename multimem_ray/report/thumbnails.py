"""A small picture of a sample's modality by what its arrays look like.

For modalities that come from a plugin: the page knows nothing of them but their ``Spec``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw

from multimem_ray.modalities.base import Spec

Array = npt.NDArray[np.float64]

WIDTH, HEIGHT, MARGIN = 340, 90, 4
MOST_LINES, MOST_POINTS, STRIP_FRAMES = 6, 4000, 4
# Middle tones, which can be told apart on white and on black.
COLOURS = ("#3f8fd2", "#d9772b", "#3fa45b", "#b45fc4", "#c9a227", "#7d8790")


def drawn(view: npt.NDArray[np.generic], spec: Spec) -> Pillow.Image | None:
    """A picture of one view; None for arrays that have no look, such as tokens.

    Args:
        view: Of ``spec.shape``.
        spec: What the array is.
    """
    if spec.kind == "series":
        return _lines(np.atleast_2d(np.asarray(view, dtype=np.float64)))
    if spec.kind == "image" and spec.shape[0] in {1, 3}:
        return _pixels(np.asarray(view, dtype=np.float64), spec.dtype)
    if spec.kind == "frames" and spec.shape[1] in {1, 3}:
        at = np.linspace(0, len(view) - 1, min(STRIP_FRAMES, len(view))).round().astype(int)
        frames = np.asarray(view, dtype=np.float64)[at]
        return _pixels(np.concatenate(list(frames), axis=2), spec.dtype)
    return None


def _lines(series: Array) -> Pillow.Image:
    """The course of each channel, (C, T), one above the other, each in its own range."""
    picture = Pillow.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    shown = series[:MOST_LINES]
    row = (HEIGHT - 2 * MARGIN) / len(shown)
    for number, values in enumerate(shown):
        step = -(-len(values) // MOST_POINTS)
        values = np.nan_to_num(values[::step])  # noqa: PLW2901 - the same line, thinned
        low, high = values.min(), values.max()
        share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
        x = np.linspace(MARGIN, WIDTH - MARGIN, len(values))
        y = MARGIN + row * (number + 0.9 - 0.8 * share)
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), COLOURS[number], width=1)
    return picture


def _pixels(values: Array, dtype: str) -> Pillow.Image:
    """(C, H, W) as a picture: bytes as they are, other numbers over their own range."""
    if dtype != "uint8":
        low, high = np.nanmin(values), np.nanmax(values)
        values = np.nan_to_num((values - low) * (255.0 / ((high - low) or 1.0)))
    pixels = values.astype(np.uint8).transpose(1, 2, 0)
    return Pillow.fromarray(np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels)
