"""How a sample looks and sounds, as vectors, without any model.

A picture is the low frequencies of its thumbnail (discrete cosine transform of luma and chroma), a
sound those of its mel spectrogram. Both are kept whole and cropped: a copy that lost its margins,
or its beginning, is near a crop of the original. A video is its middle frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image as Pillow
from scipy.fft import dctn

from multimem_ray.duplicates.vectors import Floats

_SIDE, _LUMA, _CHROMA = 32, 8, 4
_CROPS = (0.95, 0.9, 0.85)  # of a side; nine places each
_CUTS = (0.05, 0.1)  # of the length, at either end
_WINDOW, _BANDS, _FRAMES, _TIMES, _TONES = 512, 32, 32, 8, 16
_FAINTEST = 1e-6  # of the loudest


def picture(decoded: Any, rate: int = 0) -> Floats:
    """(28, 93) of a picture (D, D, 3) of uint8: whole, and nine crops of each size."""
    del rate
    side = len(decoded)
    whole = Pillow.fromarray(np.ascontiguousarray(decoded)).convert("YCbCr")
    boxes = [(0.0, 0.0, float(side), float(side)), *_boxes(side)]
    return np.stack([_thumbnail(whole, box) for box in boxes])


def clip(decoded: Any, rate: int = 0) -> Floats:
    """(28, 93) of the middle frame of a video (T, choices, 3, D, D) of uint8."""
    return picture(decoded[len(decoded) // 2, 0].transpose(1, 2, 0), rate)


def sound(decoded: Any, rate: int) -> Floats:
    """(5, 127) of a sound (samples,) of int16: whole, and with either end cut off."""
    length = len(decoded)
    cuts = [round(length * share) for share in _CUTS]
    parts = [decoded, *(p for cut in cuts for p in (decoded[cut:], decoded[: length - cut]))]
    return np.stack([_spectrogram(part.astype(np.float32), rate) for part in parts])


LOOKS: Mapping[str, tuple[Callable[[Any, int], Floats], tuple[int, int]]] = {
    "audio": (sound, (1 + 2 * len(_CUTS), _TIMES * _TONES - 1)),
    "image": (picture, (1 + 9 * len(_CROPS), _LUMA**2 + 2 * _CHROMA**2 - 3)),
    "video": (clip, (1 + 9 * len(_CROPS), _LUMA**2 + 2 * _CHROMA**2 - 3)),
}
"""Modality to its function, and the shape (V, d) of what that gives."""


def _boxes(side: int) -> Iterator[tuple[float, float, float, float]]:
    for share in _CROPS:
        kept = side * share
        starts = [0.0, (side - kept) / 2, side - kept]
        yield from ((x, y, x + kept, y + kept) for y in starts for x in starts)


def _thumbnail(whole: Pillow.Image, box: tuple[float, float, float, float]) -> Floats:
    small = whole.resize((_SIDE, _SIDE), Pillow.Resampling.BILINEAR, box=box)
    planes = np.asarray(small, np.float32).transpose(2, 0, 1)
    waves = dctn(planes, axes=(1, 2), norm="ortho")
    # The first number is the brightness of the whole, which copies change.
    luma = waves[0, :_LUMA, :_LUMA].ravel()[1:]
    chroma = [2 * waves[plane, :_CHROMA, :_CHROMA].ravel()[1:] for plane in (1, 2)]
    return np.concatenate([luma, *chroma]).astype(np.float32)


def _spectrogram(values: Floats, rate: int) -> Floats:
    values = np.pad(values, (0, max(0, _WINDOW - len(values))))
    starts = np.linspace(0, len(values) - _WINDOW, _FRAMES).astype(int)
    frames = values[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ _filters(rate)
    logarithms = np.log(power + _FAINTEST * power.max() + 1e-12)
    waves: Floats = dctn(logarithms, norm="ortho")[:_TIMES, :_TONES].ravel()[1:]
    return waves.astype(np.float32)


def _filters(rate: int) -> Floats:
    """(frequencies, bands) triangles on the mel scale, HTK's formula."""
    mels = 2595 * np.log10(1 + np.fft.rfftfreq(_WINDOW, 1 / rate) / 700)
    edges = np.linspace(mels[0], mels[-1], _BANDS + 2)
    rising = (mels[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mels[:, None]) / np.diff(edges)[1:]
    filters: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return filters
