"""SpecAugment on the sound itself (Park et al. 2019, arXiv 1904.08779).

There, masks cover channels of a log-mel spectrogram. Here towers make their spectrograms
themselves, so the sound is masked before: a mask in time is silence, a mask in frequency a band
that is missing from beginning to end, drawn evenly on the mel scale. Nothing is warped in time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def masked(waves: Tensor, rate: int, longest: float, widest: float, draws: Tensor) -> Tensor:
    """Sounds with stretches and bands of silence.

    Args:
        waves: float32 (..., values).
        rate: Values per second.
        longest: Largest share of the time that one mask takes, 0..1.
        widest: Largest share of the mel scale, from 0 to half the rate, that one takes.
        draws: (..., 4, masks) in [0, 1), on the CPU: sizes and places of masks in frequency, and of
            masks in time.
    """
    import torch

    length = waves.shape[-1]
    if widest:
        first, last = _spans(draws[..., 0, :], draws[..., 1, :], widest)
        low, high = (_hertz(share * _mel(rate / 2)) * length / rate for share in (first, last))
        spectra = _silenced(torch.fft.rfft(waves), low, high)
        waves = torch.fft.irfft(spectra, length)
    if longest:
        first, last = _spans(draws[..., 2, :], draws[..., 3, :], longest)
        waves = _silenced(waves, first * length, last * length)
    return waves


def _spans(sizes: Tensor, places: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Beginning and end of each mask, as shares of the whole."""
    first = places * (1 - most * sizes)
    return first, first + most * sizes


def _silenced(values: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Values (..., length), zero from each ``first`` to each ``last`` (..., masks), rounded."""
    import torch

    at = torch.arange(values.shape[-1], device=values.device)
    for begin, end in zip(first.round().unbind(-1), last.round().unbind(-1), strict=True):
        begin, end = begin.to(at.device)[..., None], end.to(at.device)[..., None]  # noqa: PLW2901
        values = values.masked_fill((at >= begin) & (at < end), 0)
    return values


def _mel(hertz: float) -> float:
    """HTK's scale, as torchaudio has it."""
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)
