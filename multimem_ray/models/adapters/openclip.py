"""Models of open_clip: any of its architectures, from scratch, from a file or from its hub."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained
from safetensors import SafetensorError
from torch import nn

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.modalities.base import Modality
from multimem_ray.models.adapters.base import (
    FINE_TUNING,
    Adapted,
    Adapter,
    Description,
    require_setting,
)
from multimem_ray.models.adapters.foreign import require_allowed, require_plain
from multimem_ray.models.presets import preset_defaults
from multimem_ray.models.towers.base import CLIP_MEAN, CLIP_STD, Normalize, Tower
from multimem_ray.models.towers.clip import TextTower, VisualTower, architecture, untrained

_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
)


@dataclass(frozen=True)
class Source:
    """An architecture and where its weights are.

    Args:
        config: open_clip's description.
        weights: A file, a tag's entry in open_clip's list, or None for a model from scratch.
        preprocess: ``mean`` and ``std`` of its pictures, where they are not CLIP's.
    """

    config: dict[str, Any]
    weights: Path | Mapping[str, Any] | None
    preprocess: Mapping[str, Any] = field(default_factory=dict)


class OpenClipAdapter(Adapter):
    """``open_clip:ARCH[/PRETRAINED]``."""

    def source(self) -> Source:
        """Architecture and weights that the name stands for."""
        arch, _, pretrained = self.place.partition("/")
        config = architecture(arch)
        if not pretrained:
            return Source(config, None)
        tag = open_clip.get_pretrained_cfg(arch, pretrained)
        if tag:
            # The weights of a tag need the activation that they were trained with.
            config["quick_gelu"] = bool(tag.get("quick_gelu", False))
            return Source(config, tag, tag)
        file = Path(pretrained).expanduser()
        if not file.is_file():
            tags = open_clip.list_pretrained_tags_by_model(arch)
            hint = nearest(pretrained, tags) if tags else "; open_clip lists none for it"
            raise ConfigError(
                f"model.adapter: {self.name}: '{pretrained}' is neither a file here nor a tag of "
                f"{arch}{hint}"
            )
        return Source(config, file)

    def describe(self) -> Description:
        """See :meth:`Adapter.describe`."""
        source = self.source()
        config = source.config
        if "multimodal_cfg" in config or not isinstance(config.get("vision_cfg"), dict):
            raise ConfigError(f"model.adapter: {self.name}: only models with two towers are known")
        vision, text = config["vision_cfg"], config["text_cfg"]
        size = vision.get("image_size", 224)
        size = size if isinstance(size, int) else size[0]
        if text.get("tokenizer_kwargs"):
            raise ConfigError(
                f"model.adapter: {self.name}: its tokenizer cleans text in a way of its own "
                f"({text['tokenizer_kwargs']}); use a plugin"
            )
        tokens = text.get("hf_tokenizer_name")
        modalities = {
            "image": {"size": size},
            "text": {
                "tokenizer": f"hf:{tokens}" if tokens else "clip",
                "length": text.get("context_length", 77),
                "dropout": 0.0,
            },
        }
        scratch = preset_defaults("clip")["training"]
        training = scratch if source.weights is None else FINE_TUNING
        return Description(config["embed_dim"], modalities, training)

    def build(self, modalities: Sequence[Modality], *, weights: bool) -> Adapted:
        """See :meth:`Adapter.build`."""
        source = self.source()
        model = open_clip.CustomTextCLIP(**source.config)
        if weights and source.weights is not None:
            self._load(model, source.weights)
        expected = self.describe().modalities
        mean = source.preprocess.get("mean", CLIP_MEAN)
        std = source.preprocess.get("std", CLIP_STD)
        towers: dict[str, Tower] = {}
        for modality in modalities:
            if modality.name == "image":
                size = expected["image"]["size"]
                require_setting("image", "size", modality.spec.shape[-1], size, self.name)
                towers["image"] = VisualTower(model.visual, Normalize(modality.spec, mean, std))
            elif modality.name == "text":
                length = expected["text"]["length"]
                require_setting("text", "length", modality.spec.shape[0], length, self.name)
                towers["text"] = TextTower(model.text)
        return Adapted(towers, log_scale=float(model.logit_scale.detach()))

    def _load(self, model: nn.Module, weights: Path | Mapping[str, Any]) -> None:
        if isinstance(weights, Path):
            path = str(weights)
        else:
            try:
                path = download_pretrained(weights)
            except Exception as error:
                said = " ".join(str(error).split())[:300]
                raise ModelError(
                    f"{self.name}: the weights cannot be downloaded ({said}); fetch them "
                    "elsewhere and name the file: open_clip:ARCH/path/to/file"
                ) from error
            require_plain(Path(path), self.allow)
        try:
            open_clip.load_checkpoint(model, path, strict=True, weights_only=True)
        except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, KeyError) as error:
            said = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{path}: no weights for {self.name}, or not plain tensors: {said}"
            ) from error


class OpenClipFolderAdapter(OpenClipAdapter):
    """A folder with ``open_clip_config.json`` and weights, as open_clip's hub holds them."""

    def source(self) -> Source:
        """See :meth:`OpenClipAdapter.source`."""
        folder = Path(self.place).expanduser()
        file = folder / "open_clip_config.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            config = untrained(content["model_cfg"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file}: cannot be read: {error}") from error
        require_allowed(config, str(file), self.allow)
        weights = [folder / name for name in _WEIGHT_FILES if (folder / name).is_file()]
        if not weights:
            raise ModelError(f"{folder}: no weights; expected one of {', '.join(_WEIGHT_FILES)}")
        require_plain(weights[0], self.allow)
        return Source(config, weights[0], content.get("preprocess_cfg", {}))
