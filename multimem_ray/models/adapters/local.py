"""A folder on this machine: told by what lies in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from multimem_ray.config import ModelConfig
from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import Adapted, Adapter, Description
from multimem_ray.models.adapters.huggingface import HuggingFaceAdapter
from multimem_ray.models.adapters.openclip import OpenClipFolderAdapter


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
        if not folder.is_dir():
            raise ConfigError(f"model.adapter: {self.name}: {folder} is no folder here")
        if (folder / "open_clip_config.json").exists():
            return OpenClipFolderAdapter(self.name, str(folder))
        content = _read(folder / "config.json")
        if "model_type" in content:
            return HuggingFaceAdapter(self.name, str(folder))
        if "model" in content and "modality_settings" in content:
            return OwnModelAdapter(self.name, str(folder))
        raise ConfigError(
            f"model.adapter: {folder} holds no model that is known: neither our own config.json "
            "and model.safetensors, nor open_clip_config.json, nor a transformers config.json"
        )


class OwnModelAdapter(Adapter):
    """A reference model that a run of ours left in ``<output>/models/<id>``."""

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        content = self._content
        config = self._config
        # The recipe it was trained with is what a continuation would start from.
        model = {"logit_scale_max": config.logit_scale_max}
        settings = content["modality_settings"]
        return Description(config.dim, settings, content["training"], model)

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        from multimem_ray.models.checkpoint import load_weights, read_weights
        from multimem_ray.models.contrastive import build_model
        from multimem_ray.storage import Storage

        known = sorted(self._content["modality_settings"])
        there = [modality for modality in modalities if modality.name in known]
        if weights and len(there) != len(known):
            raise ConfigError(
                f"model.modalities: {self.name} embeds {', '.join(known)}: use all of them"
            )
        config = self._config.model_copy(update={"init": None, "freeze": []})
        model = build_model(config, there, seed=0, weights=False)
        if weights:
            source = str(Path(self.place) / "model.safetensors")
            load_weights(model, read_weights(Storage(), source), source)
        towers = {name: model.tower(name) for name in model.modalities}
        return Adapted(towers, model.shared, float(model.log_scales.detach().mean()))

    @cached_property
    def _content(self) -> dict[str, Any]:
        return _read(Path(self.place) / "config.json")

    @property
    def _config(self) -> ModelConfig:
        try:
            return ModelConfig.model_validate(self._content["model"])
        except ValueError as error:
            raise ModelError(f"{self.place}/config.json: of another version: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {error}") from error
    return content
