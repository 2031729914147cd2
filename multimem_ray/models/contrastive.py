"""The contrastive model: one tower per modality, one logit scale per pair of modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from multimem_ray.config import ModelConfig
from multimem_ray.modalities.base import Modality
from multimem_ray.models.loss import contrastive_loss, pairs_of
from multimem_ray.models.towers import Tower, build_tower


class ContrastiveModel(nn.Module):
    """Embeds each modality present into one space.

    ``prepare`` (no parameters, equal for all models of a bank) and ``embed`` are apart so that a
    bank of models prepares a batch once.
    """

    def __init__(self, config: ModelConfig, modalities: Sequence[Modality]) -> None:
        super().__init__()
        self.modalities = tuple(modality.name for modality in modalities)
        self.dim = config.dim
        self.towers = nn.ModuleDict(
            {
                modality.name: build_tower(
                    modality.name, modality.spec, config.dim, config.towers.get(modality.name, {})
                )
                for modality in modalities
            }
        )
        self.pairs = pairs_of(self.modalities)
        self.log_scale_max = math.log(config.logit_scale_max)
        self.log_scales = nn.Parameter(torch.full((len(self.pairs),), math.log(config.logit_scale)))

    @torch.no_grad()
    def prepare(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw arrays, modality → (N_m, *shape), to features; nothing here has parameters."""
        return {name: self._tower(name).prepare(raw) for name, raw in values.items()}

    def _tower(self, name: str) -> Tower:
        return cast("Tower", self.towers[name])

    def embed(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features to L2-normalised embeddings, modality → (N_m, dim)."""
        return {
            name: functional.normalize(self.towers[name](feature).float(), dim=-1)
            for name, feature in features.items()
        }

    def loss(self, features: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Contrastive loss of a batch; see :func:`multimem_ray.models.loss.contrastive_loss`."""
        scales = self.log_scales.clamp(0.0, self.log_scale_max).exp()
        by_pair = dict(zip(self.pairs, scales.unbind(), strict=True))
        return contrastive_loss(self.embed(features), rows, by_pair)


def build_model(config: ModelConfig, modalities: Sequence[Modality], seed: int) -> ContrastiveModel:
    """A model with weights drawn from ``seed``, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ContrastiveModel(config, modalities)


def channels_last(model: ContrastiveModel) -> ContrastiveModel:
    """The model with the weights of its convolutions laid out as the CPU and tensor cores like it.

    ``Module.to(memory_format=…)`` does the same for pictures only, and fails on a video's weights.
    """
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim in layouts:
            tensor.data = tensor.data.contiguous(memory_format=layouts[tensor.ndim])
    return model
