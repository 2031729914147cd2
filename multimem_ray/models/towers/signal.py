"""A tower for series that are no sound: sensors, prices, tracks; of any unit and any rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import Tower, require

_SMALLEST = 1e-6


class SignalTower(Tower):
    """Strided convolutions over time, for (C, T) or (T,) arrays.

    A channel enters as its course (zero mean, unit variance) and, constant over time, as the sign
    and logarithm of its mean and the logarithm of its deviation: so its level is kept, and no unit
    is too large or too small to be learned from.
    """

    def __init__(self, spec: Spec, dim: int, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        require(spec, "series", "signal")
        channels = spec.shape[0] if len(spec.shape) == 2 else 1
        layers: list[nn.Module] = []
        previous = 3 * channels
        for level in range(depth):
            layers += [nn.Conv1d(previous, width << level, 7, 2, 3), nn.GELU()]
            previous = width << level
        self.convolutions = nn.Sequential(*layers)
        places = min(8, -(-spec.shape[-1] // (1 << depth)))
        self.pool = nn.AdaptiveAvgPool1d(places)
        flat = previous * places
        self.project = nn.Sequential(nn.LayerNorm(flat), nn.Linear(flat, dim))

    def prepare(self, raw: Tensor) -> Tensor:
        """Course, level and spread of each channel, (N, 3 C, T)."""
        # Squares of float32 overflow from 1e19 on.
        series = (raw if raw.dim() == 3 else raw.unsqueeze(1)).double()
        mean, spread = series.mean(-1, keepdim=True), series.std(-1, correction=0, keepdim=True)
        course = (series - mean) / spread.clamp_min(_SMALLEST)
        level = torch.sign(mean) * torch.log1p(mean.abs())
        parts = [course, level.expand_as(series), torch.log1p(spread).expand_as(series)]
        return torch.cat(parts, 1).float()

    def forward(self, features: Tensor) -> Tensor:
        maps = self.pool(self.convolutions(features))
        projected: Tensor = self.project(functional.gelu(maps).flatten(1))
        return projected
