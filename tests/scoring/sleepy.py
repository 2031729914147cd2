"""A modality that takes its time without taking the processor's: for tests that need a moment."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from multimem_ray.modalities.base import Array, Modality, Spec
from multimem_ray.modalities.registry import register

SECONDS = 0.05


@register
class Sleepy(Modality):
    """Eight numbers from a string."""

    name = "sleepy"
    extensions = ("sleepy",)

    @property
    def spec(self) -> Spec:
        return Spec("tokens", (8,), "int32", vocab=256)

    def decode(self, data: Any) -> Array:
        time.sleep(SECONDS)
        return np.frombuffer(str(data).encode()[:8].ljust(8, b"\0"), np.uint8).astype(np.int32)

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        return decoded
