"""The demo's sounds: a few notes in which every attribute of the scene can be heard.

=========  ========================================================
attribute  what it is in the sound
=========  ========================================================
ground     ambience: the band of a rushing noise
count      number of notes
size       register: large is low
colour     vowel: the band in which the notes' overtones are strong
shape      bend: how each note's pitch goes (up, down, arch, ...)
texture    touch: held, trembling, plucked, swelling
motion     course of the whole: fading, falling, wavering, ...
=========  ========================================================

Tuning, loudness, onset and the noise itself are drawn afresh for every sample.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import soundfile

from multimem_ray.demo.scene import Scene

SAMPLE_RATE = 8000
SECONDS = 1.0

Wave = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_AMBIENCE_HZ = {
    "lava": 90,
    "dusk": 220,
    "night": 400,
    "sea": 650,
    "forest": 1000,
    "desert": 1500,
    "meadow": 2200,
    "snow": 3100,
}
_PITCH_HZ = {"small": 480.0, "medium": 230.0, "large": 110.0}
_VOWEL_HZ = {
    "violet": 500,
    "blue": 800,
    "cyan": 1100,
    "green": 1450,
    "yellow": 1850,
    "orange": 2300,
    "red": 2800,
    "pink": 3400,
}
_VOWEL_WIDTH_HZ = 260
_HIGHEST_HZ = 0.48 * SAMPLE_RATE
_BENDS: dict[str, Callable[[Wave], Any]] = {  # octaves over a note's course t in [0, 1]
    "square": lambda t: 0 * t,
    "triangle": lambda t: 0.8 * t,
    "heart": lambda t: -0.8 * t,
    "circle": lambda t: 0.8 * np.sin(np.pi * t),
    "ring": lambda t: -0.8 * np.sin(np.pi * t),
    "cross": lambda t: 0.7 * (t > 0.5),
    "hexagon": lambda t: -0.7 * (t > 0.5),
    "star": lambda t: 0.35 * np.sin(8 * np.pi * t),
}
_TOUCHES: dict[str, Callable[[Wave], Any]] = {  # loudness over a note's course
    "plain": lambda t: 1 + 0 * t,
    "striped": lambda t: 0.55 + 0.45 * np.cos(10 * np.pi * t),
    "dotted": lambda t: np.exp(-6 * t),
    "checked": lambda t: t**2,
}
_COURSES: dict[str, Callable[[Wave], Any]] = {  # loudness over the clip
    "left": lambda t: 1 - 0.9 * t,
    "right": lambda t: 0.1 + 0.9 * t,
    "pulsing": lambda t: 0.15 + 0.85 * np.sin(2 * np.pi * t) ** 2,
}
_DRIFTS: dict[str, Callable[[Wave], Any]] = {  # octaves over the clip
    "up": lambda t: 0.9 * t - 0.45,
    "down": lambda t: 0.45 - 0.9 * t,
    "spinning": lambda t: 0.4 * np.sin(4 * np.pi * t),
}


def play(scene: Scene, rng: np.random.Generator) -> bytes:
    """The scene's notes: mono 16-bit FLAC, ``SECONDS`` long at ``SAMPLE_RATE``."""
    total = round(SECONDS * SAMPLE_RATE)
    clip = np.arange(total) / total
    slot = (clip - rng.uniform(0, 0.05)) * scene.count
    # Each note fills four fifths of its slot; the ambience is heard in between.
    note = np.clip((slot % 1.0) / 0.8, 0, 1)
    gate = np.minimum(1, 25 * np.minimum(note, 1 - note)) * (slot >= 0)

    octaves = _BENDS[scene.shape](note) + rng.uniform(-0.03, 0.03)
    loudness = gate * _TOUCHES[scene.texture](note)
    if scene.motion in _DRIFTS:
        octaves = octaves + _DRIFTS[scene.motion](clip)
    else:
        loudness = loudness * _COURSES[scene.motion](clip)
    wave = loudness * _voice(_PITCH_HZ[scene.size] * 2**octaves, _VOWEL_HZ[scene.colour])
    wave *= rng.uniform(0.45, 0.75) / np.abs(wave).max()
    wave += _ambience(_AMBIENCE_HZ[scene.ground], total, rng) + rng.normal(0, 0.001, size=total)

    buffer = io.BytesIO()
    samples = (wave.clip(-1, 1) * 32767).astype(np.int16)
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _voice(pitch_hz: Wave, vowel_hz: float) -> Wave:
    """A tone of moving pitch: its fundamental, and overtones that are strong around the vowel.

    Overtones that the sample rate cannot carry are left out.
    """
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    tone = np.sin(phase)
    reach_hz = min(vowel_hz + 3 * _VOWEL_WIDTH_HZ, _HIGHEST_HZ)
    for multiple in range(2, int(reach_hz / pitch_hz.min()) + 1):
        overtone_hz = multiple * pitch_hz
        strength = np.exp(-(((overtone_hz - vowel_hz) / _VOWEL_WIDTH_HZ) ** 2))
        tone += strength * (overtone_hz < _HIGHEST_HZ) * np.sin(multiple * phase)
    return tone


def _ambience(centre_hz: float, total: int, rng: np.random.Generator) -> Wave:
    """Noise in a band around ``centre_hz``, quieter than the notes."""
    frequency = np.fft.rfftfreq(total, 1 / SAMPLE_RATE)
    band = np.exp(-(((frequency - centre_hz) / (30 + 0.15 * centre_hz)) ** 2))
    noise = np.fft.irfft(band * np.exp(2j * np.pi * rng.random(len(frequency))), total)
    scaled: Wave = noise / np.abs(noise).max() * rng.uniform(0.1, 0.2)
    return scaled
