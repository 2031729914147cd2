"""Plugins: a model in your own code, in about twenty lines.

``model.adapter: plugin:package.module:factory`` imports ``package.module`` and calls ``factory()``
once for each reference model, after the random generator was seeded for that model. The factory
(a function or a class) carries what must be known before anything is built:

    ``modalities``  mapping: modality → settings that its inputs need, as in the configuration's
                    section ``modalities``; what the user writes there wins
    ``dim``         dimension of the embeddings

and returns a ``torch.nn.Module`` with one method, :meth:`Plugin.embed`. A function gets the two by
assignment (``make.dim = 512``), a class as class attributes. All parameters of the module are
trained, saved and loaded. A float ``log_scale`` of the module, the logarithm of the logit scale
that it was trained with, is where training starts from. A modality that this package does not
have is added by ``data.plugins``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import Adapter, Description
from multimem_ray.models.towers import Adapted
from multimem_ray.models.towers.base import Tower


@runtime_checkable
class Plugin(Protocol):
    """What a factory returns, beside being a ``torch.nn.Module``."""

    def embed(self, modality: str, values: Tensor) -> Tensor:
        """Vectors (B, dim) of a batch; they are normalised afterwards.

        Args:
            modality: One of the factory's ``modalities``.
            values: (B, *shape) as the modality's views are: image uint8 (3, S, S), audio int16
                (T,), video uint8 (frames, 3, S, S), text int32 (length,) of token ids.
        """


class PluginAdapter(Adapter):
    """``plugin:package.module:factory``."""

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        factory = self._factory()
        modalities, dim = getattr(factory, "modalities", None), getattr(factory, "dim", None)
        if not isinstance(modalities, Mapping) or not isinstance(dim, int):
            raise ConfigError(
                f"model.adapter: {self.name}: the factory must carry 'modalities' (modality → "
                "settings) and 'dim' (int); see multimem_ray.models.adapters.plugin"
            )
        return Description(dim, {name: dict(given or {}) for name, given in modalities.items()})

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`; the factory alone decides about its weights."""
        del weights
        known = self.describe().modalities
        made = self._factory()()
        if not isinstance(made, nn.Module) or not isinstance(made, Plugin):
            raise ModelError(
                f"{self.name}: the factory returned a {type(made).__name__}; expected a "
                "torch.nn.Module with a method embed(modality, values)"
            )
        names = [modality.name for modality in modalities if modality.name in known]
        towers: dict[str, Tower] = {name: PluginTower(made, name) for name in names}
        return Adapted(towers, shared=made, log_scale=getattr(made, "log_scale", None))

    def _factory(self) -> Callable[[], Any]:
        module, _, name = self.place.partition(":")
        try:
            found = getattr(importlib.import_module(module), name or "factory", None)
        except ImportError as error:
            raise ConfigError(
                f"model.adapter: {self.name}: '{module}' cannot be imported: {error}; put its "
                "folder on PYTHONPATH, or into the working directory of the job"
            ) from error
        if not callable(found):
            raise ConfigError(f"model.adapter: {self.name}: {module} has no factory '{name}'")
        return cast("Callable[[], Any]", found)


class PluginTower(Tower):
    """One modality of a plugin. The plugin belongs to the model, not to its towers."""

    def __init__(self, plugin: nn.Module, modality: str) -> None:
        super().__init__()
        # In a tuple, so that its parameters are not registered once for each modality.
        self._plugin = (plugin,)
        self._modality = modality

    def forward(self, features: Tensor) -> Tensor:
        plugin = cast("Plugin", self._plugin[0])
        embedded = plugin.embed(self._modality, features)
        if embedded.ndim != 2 or len(embedded) != len(features):
            raise ModelError(
                f"{type(plugin).__name__}.embed('{self._modality}', …) returned "
                f"{tuple(embedded.shape)} for {len(features)} samples; expected (B, dim)"
            )
        return embedded
