"""The towers of a model, whoever made them."""

from __future__ import annotations

from collections.abc import Sequence

from multimem_ray.config import ModelConfig
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters import adapter
from multimem_ray.models.towers import Adapted, build_tower


def assemble(config: ModelConfig, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
    """The adapter's towers, and those that are built for the other modalities.

    Args:
        weights: Load what the adapter gives.

    Raises:
        ConfigError: Towers, modalities and dimension do not fit together.
    """
    adapted = Adapted({})
    if config.adapter is not None:
        source = adapter(config.adapter, config.allow)
        description = source.describe()
        if config.dim != description.dim:
            raise ConfigError(
                f"model.dim = {config.dim}: {config.adapter} embeds in {description.dim} dimensions"
            )
        adapted = source.build(modalities, weights=weights)
        for modality in modalities:
            if modality.name not in adapted.towers and modality.name not in config.towers:
                raise ConfigError(
                    f"model.adapter: {config.adapter} has no tower for {modality.name}; give it "
                    f"one in model.towers.{modality.name}, or leave it out of model.modalities"
                )
    towers = {
        m.name: adapted.towers.get(m.name)
        or build_tower(m.name, m.spec, config.dim, config.towers.get(m.name, {}))
        for m in modalities
    }
    return Adapted(towers, adapted.shared, adapted.log_scale)
