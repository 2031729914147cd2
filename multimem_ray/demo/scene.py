"""What the demo's samples are about: scenes, and how each modality sees them.

A *scene* is a handful of attributes (ground, shape, colour, texture, motion, count, size). Every
modality shows all of them in its own way: the picture and the video draw them, the caption names
them, and the sound has one property for each. So a contrastive model can learn what belongs
together. As in data from the web, no modality is quite right: each reads each attribute wrongly
with a small probability, independently of the others. What a model cannot explain by the rule it
can only memorize.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "hexagon", "cross", "ring", "heart")
GROUNDS = ("night", "sea", "forest", "desert", "snow", "dusk", "lava", "meadow")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "pink")
TEXTURES = ("plain", "striped", "dotted", "checked")
MOTIONS = ("left", "right", "up", "down", "spinning", "pulsing")
COUNTS = (1, 2, 3, 4)
SIZES = ("small", "medium", "large")

CHOICES: dict[str, tuple[Any, ...]] = {
    "ground": GROUNDS,
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": TEXTURES,
    "motion": MOTIONS,
    "count": COUNTS,
    "size": SIZES,
}


@dataclass(frozen=True, slots=True)
class Scene:
    """The attributes of one sample; the values are those of :data:`CHOICES`."""

    ground: str
    shape: str
    colour: str
    texture: str
    motion: str
    count: int
    size: str

    def as_dict(self) -> dict[str, Any]:
        """The attributes as a JSON-serialisable mapping."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene with each attribute drawn uniformly and independently."""
    return Scene(**{name: pick(rng, values) for name, values in CHOICES.items()})


def perceive(scene: Scene, noise: float, rng: np.random.Generator) -> Scene:
    """The scene as one modality has it: each attribute is replaced with probability ``noise``.

    The replacement is drawn from all values, so an attribute of k values is wrong with
    probability ``noise * (k - 1) / k``.
    """
    wrong = {name: pick(rng, values) for name, values in CHOICES.items() if rng.random() < noise}
    return replace(scene, **wrong)


def pick(rng: np.random.Generator, values: tuple[Any, ...]) -> Any:
    """One of the values, uniformly."""
    return values[int(rng.integers(len(values)))]
