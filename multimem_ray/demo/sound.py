"""The demo's sounds: a short tune in which every attribute of the scene can be heard.

=========  =======================================
attribute  property of the tune
=========  =======================================
shape      melody (rising, falling, arch, ...)
colour     key: the note of the scale it starts on
texture    timbre
motion     rhythm
count      voices of the chord
size       register: large is low
=========  =======================================

Tuning, loudness, vibrato, onset and hiss are drawn afresh for every sample.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile

from multimem_ray.demo.scene import COLOURS, Scene

SAMPLE_RATE = 8000
SECONDS = 1.0

Wave = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_MELODIES = {  # semitones above the key
    "circle": (0, 4, 7, 12),
    "square": (0, 0, 0, 0),
    "triangle": (12, 7, 4, 0),
    "star": (0, 12, 0, 12),
    "hexagon": (0, 7, 7, 0),
    "cross": (7, 0, 0, 7),
    "ring": (0, 4, 0, -5),
    "heart": (0, 2, 4, 5),
}
_MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
_HARMONICS = {  # amplitude of each multiple of the pitch
    "plain": (1.0,),
    "striped": (1.0, 0.0, 0.55, 0.0, 0.4, 0.0, 0.25),
    "dotted": (1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15),
    "checked": (0.8, 0.0, 0.0, 0.9, 0.0, 0.5),
}
_DECAY = {"plain": 1.5, "striped": 2.5, "dotted": 4.0, "checked": 9.0}  # per second
_RHYTHMS = {  # lengths in eighths of the bar
    "left": (2, 2, 2, 2),
    "right": (3, 1, 3, 1),
    "up": (1, 1, 2, 4),
    "down": (4, 2, 1, 1),
    "spinning": (1, 3, 1, 3),
    "pulsing": (1, 1, 1, 5),
}
_CHORDS = {1: (0,), 2: (0, 7), 3: (0, 4, 7), 4: (0, 4, 7, 12)}
_LOWEST_HZ = {"small": 523.3, "medium": 261.6, "large": 130.8}


def play(scene: Scene, rng: np.random.Generator) -> bytes:
    """The scene's tune: mono 16-bit FLAC, ``SECONDS`` long at ``SAMPLE_RATE``."""
    total = round(SECONDS * SAMPLE_RATE)
    key = _LOWEST_HZ[scene.size] * 2 ** (_MAJOR_SCALE[COLOURS.index(scene.colour)] / 12)
    key *= 2 ** (rng.uniform(-0.2, 0.2) / 12)
    vibrato_hz, vibrato_depth = rng.uniform(4, 8), rng.uniform(0, 0.004)
    wave = np.zeros(total)
    start = round(rng.uniform(0, 0.06) * SAMPLE_RATE)
    eighth = (total - start) / 8
    position = float(start)
    for offset, length in zip(_MELODIES[scene.shape], _RHYTHMS[scene.motion], strict=True):
        begin, end = round(position), min(total, round(position + length * eighth))
        time = np.arange(end - begin) / SAMPLE_RATE
        bend = vibrato_depth * np.sin(2 * np.pi * vibrato_hz * time)
        for voice in _CHORDS[scene.count]:
            pitch = key * 2 ** ((offset + voice) / 12)
            wave[begin:end] += _note(pitch, time, bend, scene.texture)
        position += length * eighth
    wave *= rng.uniform(0.45, 0.9) / np.abs(wave).max()
    wave += rng.normal(0, 0.004, size=total)
    buffer = io.BytesIO()
    samples = (wave.clip(-1, 1) * 32767).astype(np.int16)
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _note(pitch: float, time: Wave, bend: Wave, texture: str) -> Wave:
    """One note with a soft attack; harmonics that the sample rate cannot carry are left out."""
    phase = 2 * np.pi * pitch * (time + bend / (2 * np.pi))
    tone = np.zeros_like(time)
    for multiple, amplitude in enumerate(_HARMONICS[texture], start=1):
        if amplitude and multiple * pitch < 0.45 * SAMPLE_RATE:
            tone += amplitude * np.sin(multiple * phase)
    envelope = np.exp(-_DECAY[texture] * time) * np.minimum(1, time / 0.01)
    fade = np.minimum(1, (time[-1] - time) / 0.01)
    note: Wave = tone * envelope * fade
    return note
