"""A folder on this machine: told by what lies in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from multimem_ray.config import ModelConfig, TrainingConfig
from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import Adapted, Adapter, Description
from multimem_ray.models.adapters.foreign import require_allowed
from multimem_ray.models.adapters.huggingface import HuggingFaceAdapter
from multimem_ray.models.adapters.openclip import OpenClipFolderAdapter

_RECIPE = set(TrainingConfig.model_fields) - {
    "trackers",
    "cache_gb",
    "checkpoint_every_s",
    "held_out_samples",
}
_NOT_ARCHITECTURE = {"allow", "freeze", "init", "preset"}


class LocalAdapter(Adapter):
    """``local:FOLDER``: a reference model of ours, an open_clip or a transformers checkpoint."""

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        return self._inner.describe()

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        return self._inner.build(modalities, weights=weights)

    @cached_property
    def _inner(self) -> Adapter:
        folder = Path(self.place).expanduser().absolute()
        kind: type[Adapter]
        if not folder.is_dir():
            raise ConfigError(f"model.adapter: {self.name}: {folder} is no folder here")
        if (folder / "open_clip_config.json").exists():
            kind = OpenClipFolderAdapter
        elif "model_type" in (content := _read(folder / "config.json")):
            kind = HuggingFaceAdapter
        elif "model" in content and "modality_settings" in content:
            kind = OwnModelAdapter
        else:
            raise ConfigError(
                f"model.adapter: {folder} holds no model that is known: neither our own "
                "config.json and model.safetensors, nor open_clip_config.json, nor a transformers "
                "config.json"
            )
        return kind(self.name, str(folder), self.allow)


class OwnModelAdapter(Adapter):
    """A reference model that a run left in ``<output>/models/<id>``, of ours or of a stranger.

    Of its ``config.json`` architecture, inputs and recipe are taken. What it says beyond them,
    such as its loggers, which are code, or what it allows itself, is left.
    """

    def describe(self) -> Description:
        config = self._config
        # The recipe it was trained with is what a continuation would start from.
        training = {k: v for k, v in self._section("training").items() if k in _RECIPE}
        model = {"logit_scale_max": config.logit_scale_max}
        return Description(config.dim, self._section("modality_settings"), training, model)

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        from multimem_ray.models.checkpoint import load_weights, read_weights
        from multimem_ray.models.contrastive import build_model
        from multimem_ray.storage import Storage

        known = sorted(self._section("modality_settings"))
        there = [modality for modality in modalities if modality.name in known]
        if weights and len(there) != len(known):
            raise ConfigError(
                f"model.modalities: {self.name} embeds {', '.join(known)}: use all of them"
            )
        model = build_model(self._config, there, seed=0, weights=False)
        if weights:
            source = str(Path(self.place) / "model.safetensors")
            load_weights(model, read_weights(Storage(), source), source)
        towers = {name: model.tower(name) for name in model.modalities}
        return Adapted(towers, model.shared, float(model.log_scales.detach().mean()))

    @cached_property
    def _content(self) -> dict[str, Any]:
        return _read(self._file)

    @property
    def _file(self) -> Path:
        return Path(self.place) / "config.json"

    def _section(self, name: str) -> dict[str, Any]:
        section = self._content.get(name)
        if not isinstance(section, dict):
            raise ModelError(f"{self._file}: '{name}' is no section; is it of a reference model?")
        return section

    @cached_property
    def _config(self) -> ModelConfig:
        model = {k: v for k, v in self._section("model").items() if k not in _NOT_ARCHITECTURE}
        require_allowed([model, self._section("modality_settings")], str(self._file), self.allow)
        try:
            return ModelConfig.model_validate({**model, "allow": self.allow})
        except ValueError as error:
            raise ModelError(f"{self._file}: of another version: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: no JSON object, as a model's description is")
    return content
