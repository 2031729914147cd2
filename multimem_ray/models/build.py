"""From the section ``model`` to a model: towers, weights, and what of them is not trained."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch

from multimem_ray.config import ModelConfig, nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.assemble import assemble
from multimem_ray.models.checkpoint import load_weights, read_weights
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.storage import Storage


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
        model = ContrastiveModel(config, assemble(config, modalities, weights=weights))
    if weights and config.init is not None:
        load_weights(model, read_weights(storage or Storage(), config.init), config.init)
    _freeze(model, config.freeze)
    return model.train()


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
