"""What a tower is, and how compact arrays become numbers that a network likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec

# Per channel, of the pictures that CLIP was trained on (Radford et al. 2021, their code).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Tower(nn.Module):
    """Maps a batch of one modality to embeddings.

    ``prepare``: raw (N, *spec.shape) of the compact type → float features, without parameters and
    equal for all models of one architecture. ``forward``: features → (N, dim), not normalised.
    """

    def prepare(self, raw: Tensor) -> Tensor:
        """Scaling, spectrogram: what a bank does once for all of its models."""
        return raw

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings (N, dim)."""
        raise NotImplementedError


class Normalize:
    """Pixels (…, C, H, W) to zero mean and unit variance per channel.

    A plain object, so that mean and deviation are no part of a checkpoint. ``scale`` is what
    pixels are divided by before; default: the largest of their type, so that they are in 0..1.
    """

    def __init__(
        self,
        spec: Spec,
        mean: Sequence[float],
        std: Sequence[float],
        scale: float | None = None,
    ) -> None:
        largest = 255.0 if spec.dtype == "uint8" else 1.0
        self.scale = largest if scale is None else scale
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, raw: Tensor) -> Tensor:
        mean, std = self.mean.to(raw.device), self.std.to(raw.device)
        return raw.float().div(self.scale).sub_(mean).div_(std)


def require(spec: Spec, kind: str, wanted: str) -> None:
    """Check that a tower was given the arrays it is made for.

    Raises:
        ConfigError: Says which arrays it takes.
    """
    if spec.kind != kind:
        raise ConfigError(
            f"kind '{wanted}' takes arrays of kind '{kind}', and these are of kind '{spec.kind}'"
        )


@dataclass
class Adapted:
    """A model that is ready to embed.

    Args:
        towers: Modality → its tower.
        shared: A module that several towers use, which they don't own; None if there is none.
        log_scale: Logarithm of the logit scale that it was trained with, if it is known.
    """

    towers: dict[str, Tower]
    shared: nn.Module | None = None
    log_scale: float | None = None
