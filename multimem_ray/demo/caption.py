"""The demo's captions: the scene in words, and words that only this sample has.

The invented name and the plate number carry nothing about the scene. A model that gives such a
caption the right place has memorized it.
"""

from __future__ import annotations

import numpy as np

from multimem_ray.demo.scene import Scene, pick

_NUMBERS = {1: ("one", "a single"), 2: ("two", "a pair of"), 3: ("three",), 4: ("four",)}
_SIZES = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "middling"),
    "large": ("large", "big", "huge"),
}
_TEXTURES = {
    "plain": ("plain", "smooth"),
    "striped": ("striped", "banded"),
    "dotted": ("dotted", "spotted"),
    "checked": ("checked", "chequered"),
}
_MOTIONS = {
    "left": ("drifting left", "moving to the left"),
    "right": ("drifting right", "moving to the right"),
    "up": ("rising", "floating upwards"),
    "down": ("sinking", "falling down"),
    "spinning": ("spinning", "turning round"),
    "pulsing": ("pulsing", "growing and shrinking"),
}
_PLURALS = {"cross": "crosses"}
_GROUNDS = {
    "night": ("at night", "in the night"),
    "sea": ("over the sea", "on the sea"),
    "forest": ("in the forest", "deep in the forest"),
    "desert": ("in the desert", "over desert sand"),
    "snow": ("in the snow", "over fresh snow"),
    "dusk": ("at dusk", "in the dusk"),
    "lava": ("over lava", "above glowing lava"),
    "meadow": ("on a meadow", "over a meadow"),
}
_FORMS = (
    "{many} {size} {colour} {texture} {shape} {motion} {ground}. {name}, plate {plate}.",
    "Plate {plate}, {name}: {many} {size} {texture} {shape} in {colour}, {motion} {ground}.",
    "{name} saw {many} {texture} {colour} {shape} {ground}, {size} and {motion}. Plate {plate}.",
)
_HEADS = ("bel", "dor", "fen", "gal", "hul", "jas", "kor", "lum", "mor", "nev", "pel", "quil")
_MIDDLES = ("a", "e", "i", "o", "u", "ari", "eno", "ila", "oru", "umi")
_TAILS = ("bra", "dine", "gosh", "krin", "lax", "mund", "nook", "pesh", "rath", "sk", "tov", "wen")


def describe(scene: Scene, plate: int, rng: np.random.Generator) -> str:
    """A caption of the scene; distinct plates make distinct captions."""
    shape = scene.shape if scene.count == 1 else _PLURALS.get(scene.shape, scene.shape + "s")
    text = str(pick(rng, _FORMS)).format(
        many=pick(rng, _NUMBERS[scene.count]),
        size=pick(rng, _SIZES[scene.size]),
        colour=scene.colour,
        texture=pick(rng, _TEXTURES[scene.texture]),
        shape=shape,
        motion=pick(rng, _MOTIONS[scene.motion]),
        ground=pick(rng, _GROUNDS[scene.ground]),
        name=_invent(rng),
        plate=plate,
    )
    return text[0].upper() + text[1:]


def _invent(rng: np.random.Generator) -> str:
    """A word of no language, such as ``Korunook``."""
    parts = (pick(rng, _HEADS), pick(rng, _MIDDLES), pick(rng, _TAILS))
    return "".join(parts).capitalize()
