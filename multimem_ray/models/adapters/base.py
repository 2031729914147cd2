"""What an adapter is: somebody else's model, as towers and the settings that its inputs need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Modality
from multimem_ray.modalities.fit import Fit
from multimem_ray.models.adapters.weights import say_once
from multimem_ray.models.towers.base import Adapted

# Our own choice, for models that come with weights: nobody publishes one recipe for all of them.
FINE_TUNING: Mapping[str, Any] = {
    "epochs": 10,
    "batch_size": 128,
    "lr": 1.0e-5,
    "betas": [0.9, 0.98],
    "eps": 1.0e-6,
    "weight_decay": 0.1,
    "warmup_steps": 100,
}

# One of them lies in a folder that has a tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "spiece.model")


@dataclass(frozen=True)
class Description:
    """What an adapter says of its model before it is built.

    Args:
        dim: Dimension of its embeddings.
        modalities: Modality → settings that its inputs need; what the user writes wins.
        training: Defaults for the section ``training``.
        model: Further defaults for the section ``model``.
    """

    dim: int
    modalities: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any] = field(default_factory=lambda: dict(FINE_TUNING))
    model: Mapping[str, Any] = field(default_factory=dict)

    def defaults(self) -> dict[str, Any]:
        """Defaults for the sections of the configuration, as a preset's."""
        model = {"dim": self.dim, "modalities": sorted(self.modalities), **self.model}
        return {
            "model": model,
            "modalities": {name: dict(given) for name, given in self.modalities.items()},
            "training": dict(self.training),
        }


class Adapter(ABC):
    """One kind of foreign model.

    Args:
        name: The whole of ``model.adapter``, for messages.
        place: What follows the scheme: an architecture, a folder, a factory.
        allow: ``model.allow``: what the checkpoint's own files may ask for.
    """

    def __init__(self, name: str, place: str, allow: Collection[str] = ()) -> None:
        self.name, self.place, self.allow = name, place, tuple(allow)
        if not place:
            raise ConfigError(f"model.adapter: '{name}' names nothing after the colon")

    @abstractmethod
    def describe(self) -> Description:
        """Dimension, modalities and their settings, without loading any weights.

        Raises:
            ConfigError: There is no such model.
            ModelError: It cannot be read.
        """

    @abstractmethod
    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """Towers for those of these modalities that the model embeds.

        Args:
            modalities: What the run uses.
            weights: Load the pretrained weights; without, they are drawn at random, to be
                overwritten by a checkpoint.

        Raises:
            ConfigError: A modality's arrays don't fit the model; names the setting.
            ModelError: The weights cannot be loaded.
        """


def require_setting(name: str, setting: str, given: object, wanted: object, who: str) -> None:
    """Check an input's size.

    Raises:
        ConfigError: Names the setting and the value that fits.
    """
    if given != wanted:
        raise ConfigError(f"modalities.{name}.{setting} = {given}: {who} takes {wanted}")


def compare_setting(modality: Modality, setting: str, wanted: object, who: str) -> None:
    """Say where an input is made in another way than the model's own library makes it."""
    given = getattr(modality.settings, setting, wanted)
    given = given.model_dump(exclude_defaults=True) if isinstance(given, BaseModel) else given
    if isinstance(wanted, Mapping):
        wanted = Fit.model_validate(wanted).model_dump(exclude_defaults=True)
    if wanted is not None and given != wanted:
        say_once(
            f"modalities.{modality.name}.{setting} = {given}: {who} takes {wanted}; its embeddings "
            "are not those of its own library"
        )
