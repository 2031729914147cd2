"""A modality that can kill its process, as a crashing library would: decoding, or later."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

from multimem_ray.modalities.base import Array, Modality, Spec
from multimem_ray.modalities.registry import register


@register
class Deadly(Modality):
    """Eight numbers from bytes.

    ``kill`` is the last that a process hears of; with ``later`` it dies once it is decoded.
    """

    name = "deadly"
    extensions = ("deadly",)

    @property
    def spec(self) -> Spec:
        return Spec("tokens", (8,), "int32", vocab=256)

    def decode(self, data: Any) -> Array:
        if data.startswith(b"kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.frombuffer(data[:8].ljust(8, b"\0"), np.uint8).astype(np.int32)

    def view(self, decoded: Array, rng: np.random.Generator | None) -> Array:
        if decoded[:5].astype(np.uint8).tobytes() == b"later":
            os.kill(os.getpid(), signal.SIGKILL)
        return decoded
