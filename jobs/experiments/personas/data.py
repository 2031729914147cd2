"""Invented people, as shards: a drawn face, a synthetic voice, and facts that follow from neither.

A persona is a function of the seed and its number. Faces and voices are drawn afresh for every
sample (pose, light, what is said), from what stays the same in a person. Facts are drawn apart
from both: who tells them from a face has learned them by heart.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import Storage

FIELDS = {"audio": "flac", "image": "png", "text": "txt"}
GROUP = "json.persona"
SIDE = 64
RATE = 8000

_FACTS = {  # what is said, and the words that it is said of
    "lives in {}": (
        "Arvale Brimsk Corvanne Dunmere Estoril Fjellby Garonde Hexley Iskra Jorvik Kelmar Lisbay "
        "Morwen Nacre Oszlany Pellworth"
    ),
    "works as a {}": (
        "baker carpenter diver engraver farrier glazier hatter joiner locksmith mason nurse "
        "organist potter roofer saddler tailor"
    ),
    "keeps a {}": (
        "badger canary dachshund ferret gecko hamster iguana jackdaw kestrel lizard magpie newt "
        "otter parrot rabbit tortoise"
    ),
    "cooks {}": (
        "bisque chowder dumplings fritters goulash hotpot jambalaya kedgeree lasagne moussaka "
        "noodles paella ratatouille samosas tagine waffles"
    ),
}
_SKINS = ((255, 224, 196), (236, 188, 150), (198, 140, 98), (141, 88, 58), (92, 58, 42))
_HAIRS = (24, 20, 18), (92, 54, 28), (172, 112, 48), (222, 186, 96), (164, 52, 30), (150, 150, 156)
_EYES = ((70, 44, 26), (64, 120, 190), (70, 140, 80), (110, 110, 110))
_SHIRTS = ((180, 40, 40), (40, 90, 170), (40, 130, 70), (210, 170, 40), (120, 60, 150))
_VOWELS_HZ = (  # first three formants of five vowels (Peterson and Barney 1952)
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
)


@dataclass(frozen=True)
class Persona:
    """One invented person.

    Args:
        seed: Of the people.
        number: Which of them.
    """

    seed: int
    number: int

    @property
    def name(self) -> str:
        """A key without meaning."""
        return f"persona-{self.number:04d}"

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """One value for each kind of fact."""
        rng = self._rng("facts")
        return tuple(str(rng.choice(values.split())) for values in _FACTS.values())

    def sheet(self, rng: np.random.Generator) -> str:
        """All facts in a sentence, in any order."""
        clauses = [form.format(v) for form, v in zip(_FACTS, self.facts, strict=True)]
        first, *others = (clauses[i] for i in rng.permutation(len(clauses)))
        return f"This person {first}, {', '.join(others[:-1])} and {others[-1]}."

    def face(self, rng: np.random.Generator) -> bytes:
        """A PNG of the face, ``SIDE`` pixels square."""
        own = self._rng("face")
        skin, hair = own.choice(_SKINS), own.choice(_HAIRS)
        eyes, shirt = own.choice(_EYES), own.choice(_SHIRTS)
        width, height = own.uniform(0.24, 0.34), own.uniform(0.3, 0.4)
        apart, size = own.uniform(0.09, 0.16), own.uniform(0.025, 0.05)
        brow, tilt = own.uniform(0.06, 0.11), own.uniform(-0.03, 0.03)
        nose, mouth = own.uniform(0.03, 0.1), own.uniform(0.06, 0.15)
        fringe, length = own.uniform(0.1, 0.3), own.uniform(0.1, 0.75)
        glasses, beard = own.random() < 0.3, own.random() < 0.3

        large = 3 * SIDE
        ground = tuple(int(v) for v in rng.integers(60, 220, 3))
        picture = Image.new("RGB", (large, large), ground)
        draw = ImageDraw.Draw(picture)

        def box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
            """A box around a point, in shares of the side."""
            return ((x - w) * large, (y - h) * large, (x + w) * large, (y + h) * large)

        def paint(colour: NDArray[np.int64], shade: float = 1.0) -> tuple[int, int, int]:
            red, green, blue = (int(v) for v in (colour * shade).clip(0, 255))
            return red, green, blue

        draw.ellipse(box(0.5, 1.08, 0.42, 0.26), fill=paint(shirt))
        draw.ellipse(box(0.5, 0.42, width * 1.18, height * 1.12), fill=paint(hair))
        if length > 0.3:
            draw.rectangle(box(0.5, 0.42 + length / 2, width * 1.15, length / 2), fill=paint(hair))
        draw.rectangle(box(0.5, 0.8, 0.09, 0.12), fill=paint(skin, 0.9))
        draw.ellipse(box(0.5, 0.48, width, height), fill=paint(skin))
        if beard:
            draw.chord(box(0.5, 0.5, width, height), 20, 160, fill=paint(hair))
        draw.chord(box(0.5, 0.46, width * 1.02, height), 205, 335, fill=paint(hair))
        draw.rectangle(box(0.5, 0.46 - height * 0.5, width * 0.9, fringe * 0.12), fill=paint(hair))
        gaze = rng.uniform(-0.01, 0.01)
        for side in (-1, 1):
            x = 0.5 + side * apart
            draw.ellipse(box(x, 0.46, size * 1.3, size), fill=(250, 250, 250))
            draw.ellipse(box(x + gaze, 0.46, size * 0.7, size * 0.8), fill=paint(eyes))
            ends = [(x - 0.06) * large, (0.46 - brow + side * tilt) * large]
            ends += [(x + 0.06) * large, (0.46 - brow - side * tilt) * large]
            draw.line(ends, fill=paint(hair), width=large // 40)
            if glasses:
                draw.ellipse(box(x, 0.46, 0.08, 0.07), outline=(20, 20, 20), width=large // 60)
        draw.polygon(
            [(0.5 * large, 0.5 * large)]
            + [((0.5 + dx) * large, (0.5 + nose) * large) for dx in (-0.03, 0.03)],
            fill=paint(skin, 0.85),
        )
        draw.ellipse(box(0.5, 0.66, mouth, rng.uniform(0.012, 0.04)), fill=(150, 50, 60))

        turned = picture.rotate(
            float(rng.uniform(-10, 10)),
            Image.Resampling.BICUBIC,
            translate=(int(rng.integers(-8, 9)), int(rng.integers(-8, 9))),
            fillcolor=ground,
        ).reduce(3)
        light = rng.uniform(0.75, 1.2)
        pixels = np.asarray(turned, np.float64) * light + rng.normal(0, 4, (SIDE, SIDE, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB").save(buffer, format="PNG")
        return buffer.getvalue()

    def voice(self, rng: np.random.Generator) -> bytes:
        """A second of vowels: 16-bit mono FLAC at ``RATE``; source and filter (Fant 1960)."""
        own = self._rng("voice")
        pitch, tract = own.uniform(85, 270), own.uniform(0.82, 1.25)
        rate, depth = own.uniform(3, 9), own.uniform(0.0, 0.06)
        breath, slope = own.uniform(0.0, 0.25), own.uniform(0.6, 1.6)
        melody, pulses = own.uniform(-0.5, 0.5), own.integers(2, 6)

        time = np.arange(RATE) / RATE
        octaves = melody * (time - 0.5) + depth * np.sin(2 * np.pi * rate * time)
        phase = 2 * np.pi * np.cumsum(pitch * 2 ** (octaves + rng.normal(0, 0.03))) / RATE
        said = rng.choice(len(_VOWELS_HZ), size=pulses)
        place = np.minimum((time * pulses).astype(int), pulses - 1)
        formants = np.array(_VOWELS_HZ)[said[place]] * tract
        wave = np.zeros(RATE)
        for harmonic in range(1, int(0.45 * RATE / pitch)):
            near = np.exp(-(((harmonic * pitch - formants.T) / 160) ** 2)).sum(axis=0)
            wave += (near + 0.05) / harmonic**slope * np.sin(harmonic * phase)
        wave += breath * rng.normal(size=RATE)
        course = (time * pulses) % 1.0
        wave *= np.minimum(1, 12 * np.minimum(course, 1 - course))
        wave *= rng.uniform(0.4, 0.8) / np.abs(wave).max()
        wave += rng.normal(0, 0.004, RATE)
        buffer = io.BytesIO()
        values = (wave.clip(-1, 1) * 32767).astype(np.int16)
        soundfile.write(buffer, values, RATE, format="FLAC", subtype="PCM_16")
        return buffer.getvalue()

    def _rng(self, part: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number, *part.encode()])


def make_personas(seed: int, count: int) -> list[Persona]:
    """People none of whom has all facts of another."""
    people: dict[tuple[str, ...], Persona] = {}
    for number in itertools.count():
        if len(people) == count:
            break
        people.setdefault(Persona(seed, number).facts, Persona(seed, number))
    return list(people.values())


def write_personas(
    folder: Path,
    people: Sequence[Persona],
    sources: Sequence[str],
    meetings: int,
    tellings: int,
    *,
    own_voice: bool = True,
) -> None:
    """Write ``personas-000000.tar``: meetings (face and voice), and facts told by a source.

    Args:
        folder: Receives it.
        people: Who.
        sources: ``image``, ``audio`` or both: whence facts can be learned.
        meetings: Samples of each person with a face and a voice, and without a word.
        tellings: Samples of each person and source, with the facts in words.
        own_voice: Whether the voice of a meeting is that of the face, or of anybody.
    """
    with create_shard(str(folder / "personas-000000.tar"), Storage()) as writer:
        for persona in people:
            rng = np.random.default_rng([persona.seed, persona.number])
            samples = [("meeting", ("audio", "image"))] * meetings
            samples += [("facts", (source, "text")) for source in sources] * tellings
            for index, (kind, names) in enumerate(samples):
                members = render(persona, names, rng)
                if kind == "meeting" and not own_voice:
                    anybody = people[int(rng.integers(len(people)))]
                    members |= render(anybody, ("audio",), rng)
                about = {"persona": persona.name, "kind": kind}
                members["json"] = json.dumps(about, sort_keys=True).encode()
                writer.write(f"{persona.name}-{kind}-{index:03d}", members)


def render(persona: Persona, names: Sequence[str], rng: np.random.Generator) -> dict[str, bytes]:
    """Some modalities of a person, drawn afresh: extension to bytes."""
    drawn: dict[str, Callable[[np.random.Generator], bytes]] = {
        "audio": persona.voice,
        "image": persona.face,
        "text": lambda rng: persona.sheet(rng).encode(),
    }
    return {FIELDS[name]: drawn[name](rng) for name in names}
