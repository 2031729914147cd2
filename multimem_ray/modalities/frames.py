"""Frames of a clip: which of them are shown, and each as an upright square."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from multimem_ray.modalities.base import Array

_DISPLAY_MATRIX = SideDataType.DISPLAYMATRIX


class Square:
    """Turns frames into centre squares of one side, with one scaler for a whole clip.

    Args:
        side: Height and width, pixels.
        stream: Says how wide its pixels are shown for their height.
    """

    def __init__(self, side: int, stream: Any) -> None:
        self.side = side
        self.aspect = float(stream.sample_aspect_ratio or 1)
        self._scaler = VideoReformatter()
        self._matrix: bytes | None = None

    def extent(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to which a frame is scaled, the shorter one to the side."""
        shown = width * self.aspect, float(height)
        scale = self.side / min(shown)
        return max(self.side, round(shown[0] * scale)), max(self.side, round(shown[1] * scale))

    def __call__(self, frame: Any) -> Array:
        """Upright uint8 (side, side, 3)."""
        side = self.side
        width, height = self.extent(frame.width, frame.height)
        # By default each call starts a pool of threads, which takes longer than the scaling.
        scaled = self._scaler.reformat(frame, width, height, "rgb24", threads=1)
        left, top = (width - side) // 2, (height - side) // 2
        square: Array = scaled.to_ndarray()[top : top + side, left : left + side]
        if self._matrix is None:
            # Asked of the first frame alone: for all of them it takes a twentieth of the decoding.
            self._matrix = bytes(frame.side_data.get(_DISPLAY_MATRIX) or b"")
        return upright(square, self._matrix) if self._matrix else square


def upright(square: Array, matrix: bytes) -> Array:
    """A picture under the nearest of the eight turns and reflections.

    Args:
        matrix: Nine 32-bit integers; a pixel at (x, y) is shown at (a x + c y, b x + d y), of which
            a, b, c, d are the first, second, fourth and fifth (ISO 14496-12, 6.2.2).
    """
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    # Squares stay where they are: what moves them has no say.
    if abs(b) > abs(a):
        square, a, d = square.swapaxes(0, 1), c, b
    return square[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def spaced(times: list[int], last: int, count: int) -> list[int]:
    """Positions of the frames that are shown in the middle of ``count`` parts of equal time.

    Args:
        times: When each is shown, ascending.
        last: How long the last one is; 0 if nobody says.
    """
    whole = len(times)
    step = (times[-1] - times[0]) / max(1, whole - 1)
    places = (np.arange(count) + 0.5) / count
    grid = times[0] + step * np.arange(whole)
    if np.abs(np.array(times) - grid).max() <= step:
        # Of a constant rate, but for rounding: many containers know milliseconds only.
        return [int(place) for place in places * whole]
    moments = times[0] + places * (times[-1] - times[0] + (last if last > 0 else step))
    positions: list[int] = (np.searchsorted(times, moments, side="right") - 1).tolist()
    return positions
