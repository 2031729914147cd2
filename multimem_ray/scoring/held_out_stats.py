"""All that scoring a sample needs of the held-out set, as it is stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor

from multimem_ray.metric import Calibration

_COVARIANCE, _COUNT = "covariance.", "count."


@dataclass(frozen=True)
class HeldOutStatistics:
    """What scoring needs of the held-out set.

    Args:
        means: (M, n, d) float64, mean vectors.
        levels: How consistent H is under each model; None without a target.
    """

    means: Tensor
    levels: Calibration | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> HeldOutStatistics:
        """What :meth:`to_bytes` wrote."""
        stored = load(data)
        if "alignment" not in stored:
            return cls(stored["means"])
        sets = [name.removeprefix(_COVARIANCE) for name in stored if name.startswith(_COVARIANCE)]
        levels = Calibration(
            stored["alignment"],
            stored["uniformity"],
            {int(bits): stored[_COVARIANCE + bits] for bits in sets},
            {int(bits): int(stored[_COUNT + bits]) for bits in sets},
        )
        return cls(stored["means"], levels)

    def to_bytes(self) -> bytes:
        """As safetensors."""
        named = {"means": self.means}
        if self.levels is not None:
            named |= {"alignment": self.levels.alignment, "uniformity": self.levels.uniformity}
            named |= {f"{_COVARIANCE}{bits}": c for bits, c in self.levels.covariance.items()}
            counts = self.levels.counts.items()
            named |= {f"{_COUNT}{bits}": torch.tensor(count) for bits, count in counts}
        return save({name: tensor.contiguous() for name, tensor in named.items()})
