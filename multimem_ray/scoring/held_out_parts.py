"""Held-out samples of one shard under all models, as they are kept until all of H is embedded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor

_KILLED = "killed"


@dataclass(frozen=True)
class Killed:
    """A held-out sample that took processes along; it is left out of the means.

    Args:
        stage: What was being done to it: ``read``, ``decode`` or ``score``.
    """

    shard: str
    key: str
    stage: str
    detail: str


@dataclass(frozen=True)
class Embedded:
    """Held-out samples under all models.

    Args:
        mean: (M, B, n, d), embeddings averaged over the views.
        alignment: (M, B, n, n).
        present: (B, n).
        killed: Samples beside these B that were left out.
    """

    mean: Tensor
    alignment: Tensor
    present: Tensor
    killed: tuple[Killed, ...] = ()

    @classmethod
    def nothing(
        cls, models: int, modalities: int, dim: int, killed: Sequence[Killed] = ()
    ) -> Embedded:
        """No sample."""
        return cls(
            torch.zeros(models, 0, modalities, dim),
            torch.zeros(models, 0, modalities, modalities, dtype=torch.float64),
            torch.zeros(0, modalities, dtype=torch.bool),
            tuple(killed),
        )

    @classmethod
    def joined(cls, parts: Sequence[Embedded]) -> Embedded:
        """The samples of one or more parts, in their order."""
        return cls(
            torch.cat([part.mean for part in parts], dim=1),
            torch.cat([part.alignment for part in parts], dim=1),
            torch.cat([part.present for part in parts]),
            tuple(killed for part in parts for killed in part.killed),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Embedded:
        """What :meth:`to_bytes` wrote."""
        stored = load(data)
        listed = json.loads(stored.pop(_KILLED).numpy().tobytes())
        return cls(**stored, killed=tuple(Killed(**one) for one in listed))

    def to_bytes(self) -> bytes:
        """As safetensors."""
        listed = json.dumps([asdict(one) for one in self.killed]).encode()
        named = {
            "mean": self.mean,
            "alignment": self.alignment,
            "present": self.present,
            _KILLED: torch.frombuffer(bytearray(listed), dtype=torch.uint8),
        }
        return save({name: tensor.contiguous() for name, tensor in named.items()})
