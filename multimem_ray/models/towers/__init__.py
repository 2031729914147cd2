"""Towers: what turns the arrays of one modality into embeddings.

A tower is chosen by what its modality's arrays look like (``Spec.kind``), not by the modality's
name: a depth map gets the image tower, sound the spectrogram tower, a sensor's time series the
signal tower, without a line of code. ``model.towers.<modality>.kind`` names another one. A new kind
is a class in a file of this package and a line in ``KINDS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import Adapted, Tower

__all__ = ["KINDS", "Adapted", "Tower", "build_tower", "default_kind", "tower_class"]

# Where each kind is defined: the large ones import large libraries, and only when they are used.
KINDS: dict[str, str] = {
    "image": "small:ImageTower",
    "series": "small:SeriesTower",
    "frames": "small:FramesTower",
    "tokens": "small:TokensTower",
    "signal": "signal:SignalTower",
    "clip_image": "clip:ClipImageTower",
    "clip_text": "clip:ClipTextTower",
    "esresnext": "esresnext:EsresnextTower",
    "torchvision_video": "video:TorchvisionVideoTower",
    "framewise": "video:FramewiseTower",
}

# Below this rate, or without one, a series is no sound: its course tells more than its pitches.
_LOWEST_RATE = 1000


def default_kind(spec: Spec) -> str:
    """The kind of tower for arrays of this look."""
    heard = spec.sample_rate is not None and spec.sample_rate >= _LOWEST_RATE
    return "signal" if spec.kind == "series" and not heard else spec.kind


def build_tower(modality: str, spec: Spec, dim: int, settings: Mapping[str, Any]) -> Tower:
    """The tower for a modality's arrays; ``settings`` may name another ``kind`` and its options.

    Raises:
        ConfigError: Unknown kind or option, named with its config field.
    """
    options = dict(settings)
    made = tower_class(modality, str(options.pop("kind", default_kind(spec))))
    try:
        tower: Tower = made(spec, dim, **options)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"model.towers.{modality}: {error}") from error
    return tower


def tower_class(modality: str, kind: str) -> Any:
    """What builds towers of a kind, called with the spec, the dimension and options.

    Raises:
        ConfigError: There is no such kind; names the config field.
    """
    if kind not in KINDS:
        raise ConfigError(f"model.towers.{modality}.kind: unknown '{kind}'{nearest(kind, KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
