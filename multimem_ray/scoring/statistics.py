"""All that scoring a sample needs of the held-out set, as it is stored."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors.torch import load, save
from torch import Tensor

from multimem_ray.metric import Levels

_COVARIANCE = "covariance."


@dataclass(frozen=True)
class HeldOutStatistics:
    """What scoring needs of the held-out set.

    Args:
        means: (M, n, d) float64, mean vectors.
        levels: How consistent H is under each model; None without a target.
    """

    means: Tensor
    levels: Levels | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> HeldOutStatistics:
        """What :meth:`to_bytes` wrote."""
        stored = load(data)
        if "alignment" not in stored:
            return cls(stored["means"])
        covariance = {
            int(name.removeprefix(_COVARIANCE)): tensor
            for name, tensor in stored.items()
            if name.startswith(_COVARIANCE)
        }
        return cls(stored["means"], Levels(stored["alignment"], stored["uniformity"], covariance))

    def to_bytes(self) -> bytes:
        """As safetensors."""
        named = {"means": self.means}
        if self.levels is not None:
            named |= {"alignment": self.levels.alignment, "uniformity": self.levels.uniformity}
            named |= {f"{_COVARIANCE}{bits}": c for bits, c in self.levels.covariance.items()}
        return save({name: tensor.contiguous() for name, tensor in named.items()})
