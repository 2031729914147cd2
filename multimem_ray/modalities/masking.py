"""SpecAugment on the sound itself (Park et al. 2019, arXiv 1904.08779).

There, masks cover channels of a log-mel spectrogram. Here towers make their spectrograms
themselves, so the sound is masked before: a mask in time is silence, a mask in frequency a band
that is missing from beginning to end, drawn evenly on the mel scale. Nothing is warped in time.
"""

from __future__ import annotations

import numpy as np

from multimem_ray.modalities.base import Array


def masked(
    wave: Array, rate: int, masks: int, longest: float, widest: float, rng: np.random.Generator
) -> Array:
    """Sound with stretches and bands of silence.

    Args:
        wave: float32 (values,).
        rate: Values per second.
        masks: Number of each kind.
        longest: Largest share of the time that one mask takes, 0..1.
        widest: Largest share of the mel scale, from 0 to half the rate, that one takes.
        rng: Draws the size of each mask uniformly, then its place.
    """
    if widest:
        spectrum = np.fft.rfft(wave)
        for first, last in _drawn(masks, widest, rng):
            edges = _hertz(np.array([first, last]) * _mel(rate / 2)) * len(wave) / rate
            low, high = np.rint(edges).astype(int)
            spectrum[low:high] = 0
        wave = np.fft.irfft(spectrum, len(wave)).astype(np.float32)
    else:
        wave = wave.copy()
    for first, last in _drawn(masks if longest else 0, longest, rng):
        wave[round(first * len(wave)) : round(last * len(wave))] = 0
    return wave


def _drawn(masks: int, most: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Beginning and end of each mask, as shares of the whole."""
    sizes, places = rng.random((2, masks))
    first = places * (1 - most * sizes)
    return list(zip(first.tolist(), (first + most * sizes).tolist(), strict=True))


def _mel(hertz: float) -> float:
    """HTK's scale, as torchaudio has it."""
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: Array) -> Array:
    hertz: Array = 700 * (10 ** (mel / 2595) - 1)
    return hertz
