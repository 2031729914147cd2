"""The contrastive model: one tower per modality, one logit scale per pair of modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from multimem_ray.config import ModelConfig, Precision, nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters import Adapted, adapter
from multimem_ray.models.checkpoint import load_weights, read_weights
from multimem_ray.models.collectives import world_size
from multimem_ray.models.loss import contrastive_loss, pairs_of
from multimem_ray.models.precision import autocast
from multimem_ray.models.towers import Tower, build_tower
from multimem_ray.storage import Storage


class ContrastiveModel(nn.Module):
    """Embeds each modality present into one space.

    ``prepare`` (no parameters, equal for all models of a bank) and ``embed`` are apart so that a
    bank of models prepares a batch once. ``precision`` is what the towers compute in; whatever
    it is, embeddings are normalised and compared in float32.

    Args:
        config: The section ``model``.
        adapted: Towers, in the order of the modalities, and what they share.
    """

    def __init__(self, config: ModelConfig, adapted: Adapted) -> None:
        super().__init__()
        self.modalities = tuple(adapted.towers)
        self.dim = config.dim
        self.towers = nn.ModuleDict(adapted.towers)
        self.shared = adapted.shared
        self.pairs = pairs_of(self.modalities)
        self.log_scale_max = math.log(config.logit_scale_max)
        scale = math.log(config.logit_scale) if adapted.log_scale is None else adapted.log_scale
        self.log_scales = nn.Parameter(torch.full((len(self.pairs),), scale))
        self.precision: Precision = "fp32"

    def train(self, mode: bool = True) -> ContrastiveModel:
        """Training mode, but not for what is frozen: its running statistics must not move."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                for inner in module.modules():
                    inner.training = False
        return self

    def tower(self, name: str) -> Tower:
        """The tower of a modality."""
        return cast("Tower", self.towers[name])

    def is_trained(self, name: str) -> bool:
        """Whether the tower of a modality has, or shares, parameters that are not frozen."""
        modules = [self.towers[name], *([] if self.shared is None else [self.shared])]
        return any(p.requires_grad for module in modules for p in module.parameters())

    @torch.no_grad()
    def prepare(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw arrays, modality → (N_m, *shape), to features; nothing here has parameters."""
        return {name: self.tower(name).prepare(raw) for name, raw in values.items()}

    def embed(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features to L2-normalised embeddings, modality → (N_m, dim) float32."""
        return {name: self.embed_one(name, feature) for name, feature in features.items()}

    def embed_one(self, name: str, features: Tensor) -> Tensor:
        """Features of one modality to L2-normalised embeddings (N_m, dim), at least float32."""
        with autocast(features.device, self.precision):
            embedded = self.towers[name](features)
        wide = torch.promote_types(embedded.dtype, torch.float32)
        return functional.normalize(embedded.to(wide), dim=-1)

    def loss(self, features: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """Contrastive loss of a batch; see :func:`multimem_ray.models.loss.contrastive_loss`."""
        return self.loss_of(self.embed(features), rows)

    def loss_of(self, embeddings: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """The same of embeddings that are there already."""
        scales = self.log_scales.clamp(0.0, self.log_scale_max).exp()
        by_pair = dict(zip(self.pairs, scales.unbind(), strict=True))
        if world_size() > 1:
            # A rank without a modality, or without any sample, gathers with the others as well.
            none, nowhere = scales.new_zeros(0, self.dim), scales.new_zeros(0, dtype=torch.long)
            embeddings = {name: embeddings.get(name, none) for name in self.modalities}
            rows = {name: rows.get(name, nowhere) for name in self.modalities}
        return contrastive_loss(embeddings, rows, by_pair)


def build_model(
    config: ModelConfig,
    modalities: Sequence[Modality],
    seed: int,
    *,
    weights: bool = True,
    storage: Storage | None = None,
) -> ContrastiveModel:
    """A model as configured, leaving the global random generator as it was.

    Args:
        config: The section ``model``.
        modalities: What it embeds.
        seed: Of the weights that come from nowhere else.
        weights: Load what the adapter and ``model.init`` give; without, the caller loads its own.
        storage: Where ``model.init`` lies.

    Raises:
        ConfigError: Modalities, towers or patterns don't fit.
        ModelError: Weights cannot be loaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ContrastiveModel(config, _adapted(config, modalities, weights=weights))
    if weights and config.init is not None:
        load_weights(model, read_weights(storage or Storage(), config.init), config.init)
    _freeze(model, config.freeze)
    return model.train()


def _adapted(config: ModelConfig, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
    """The adapter's towers, and those that are built for the other modalities."""
    found = Adapted({})
    if config.adapter is not None:
        source = adapter(config.adapter, config.allow)
        description = source.describe()
        if config.dim != description.dim:
            raise ConfigError(
                f"model.dim = {config.dim}: {config.adapter} embeds in {description.dim} dimensions"
            )
        found = source.build(modalities, weights=weights)
        for modality in modalities:
            if modality.name not in found.towers and modality.name not in config.towers:
                raise ConfigError(
                    f"model.adapter: {config.adapter} has no tower for {modality.name}; give it "
                    f"one in model.towers.{modality.name}, or leave it out of model.modalities"
                )
    towers = {
        m.name: found.towers.get(m.name)
        or build_tower(m.name, m.spec, config.dim, config.towers.get(m.name, {}))
        for m in modalities
    }
    return Adapted(towers, found.shared, found.log_scale)


def _freeze(model: ContrastiveModel, patterns: Sequence[str]) -> None:
    """Take parameters out of training: all of a modality, or names by pattern.

    Raises:
        ConfigError: A pattern fits nothing.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        wanted = f"towers.{pattern}.*" if pattern in model.modalities else pattern
        names = [name for name in named if fnmatchcase(name, wanted)]
        if not names and pattern in model.modalities and model.shared is not None:
            raise ConfigError(
                f"model.freeze: the tower of {pattern} has no parameters of its own; name them by "
                "a pattern, such as 'shared.*'"
            )
        if not names:
            raise ConfigError(
                f"model.freeze: '{pattern}' is no modality and fits no parameter"
                f"{nearest(pattern, [*model.modalities, *named][:200])}"
            )
        for name in names:
            named[name].requires_grad = False


def channels_last(model: ContrastiveModel) -> ContrastiveModel:
    """The model with the weights of its convolutions laid out as the CPU and tensor cores like it.

    ``Module.to(memory_format=…)`` does the same for pictures only, and fails on a video's weights.
    """
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim in layouts:
            tensor.data = tensor.data.contiguous(memory_format=layouts[tensor.ndim])
    return model


def compiled(model: ContrastiveModel, backend: str = "inductor") -> ContrastiveModel:
    """The model with towers that ``torch.compile`` compiles when they are first called.

    In place, so that names of weights stay as they are. Towers of one architecture share what was
    compiled; a batch of another size compiles once more, for any size.
    """
    for tower in model.towers.values():
        tower.compile(backend=backend)
    return model
