"""Video towers: a network over space and time, or a picture's network on every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torchvision
from torch import Tensor, nn

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import Normalize, Tower, require

# Kinetics-400, as torchvision's video weights expect.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class TorchvisionVideoTower(Tower):
    """A network of ``torchvision.models.video``, for (T, 3, S, S) clips.

    Args:
        arch: Its name there: ``r3d_18``, ``mc3_18``, ``r2plus1d_18``, ``s3d``, and the transformers
            where frames and size fit them.
    """

    def __init__(
        self,
        spec: Spec,
        dim: int,
        arch: str = "r2plus1d_18",
        mean: Sequence[float] = KINETICS_MEAN,
        std: Sequence[float] = KINETICS_STD,
    ) -> None:
        super().__init__()
        require(spec, "frames", "torchvision_video")
        known = torchvision.models.list_models(torchvision.models.video)
        if arch not in known:
            raise ConfigError(f"torchvision has no video model '{arch}'{nearest(arch, known)}")
        self.network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=dim)
        self.normalize = Normalize(spec, mean, std)

    def prepare(self, raw: Tensor) -> Tensor:
        """Channels first, (N, 3, T, S, S), as torchvision wants them."""
        return self.normalize(raw).transpose(1, 2).contiguous()

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.network(features)
        return embedded


class FramewiseTower(Tower):
    """Any picture's tower on every frame, then the mean over time, for (T, C, H, W) clips.

    Mean pooling is CLIP4Clip's strongest choice without further parameters (arXiv 2104.08860).

    Args:
        frame: Kind of the picture's tower and its options, as ``model.towers.image``.
    """

    def __init__(self, spec: Spec, dim: int, frame: dict[str, Any] | None = None) -> None:
        super().__init__()
        from multimem_ray.models.towers import build_tower

        require(spec, "frames", "framewise")
        self.frames = spec.shape[0]
        picture = replace(spec, kind="image", shape=spec.shape[1:])
        self.frame = build_tower("video.frame", picture, dim, frame or {})

    def prepare(self, raw: Tensor) -> Tensor:
        prepared = self.frame.prepare(raw.flatten(0, 1))
        return prepared.view(-1, self.frames, *prepared.shape[1:])

    def forward(self, features: Tensor) -> Tensor:
        each: Tensor = self.frame(features.flatten(0, 1))
        # Each frame weighs the same, as in the consistency, which reads directions.
        unit = nn.functional.normalize(each.float(), dim=-1)
        return unit.view(-1, self.frames, unit.shape[-1]).mean(1)
