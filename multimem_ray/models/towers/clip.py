"""The image and text towers of CLIP (Radford et al. 2021), as open_clip builds them.

open_clip builds a model with both towers; the one that is not wanted is made as small as it goes
and dropped. Nothing is downloaded: weights come from ``model.init`` or an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
from torch import Tensor, nn

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers.base import CLIP_MEAN, CLIP_STD, Normalize, Tower, require

_LEAST_IMAGE = {"image_size": 32, "patch_size": 32, "layers": 1, "width": 64}
_LEAST_TEXT = {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}


def architecture(arch: str) -> dict[str, Any]:
    """open_clip's description of an architecture, without pretrained parts.

    Raises:
        ConfigError: open_clip knows none of that name; the nearest is named.
    """
    config = open_clip.get_model_config(arch)
    if config is None:
        names = open_clip.list_models()
        raise ConfigError(f"open_clip has no architecture '{arch}'{nearest(arch, names)}")
    return untrained(config)


def untrained(config: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's description of an architecture without weights that it would fetch."""
    kept = {name: part for name, part in config.items() if name != "custom_text"}
    for name, pretrained in (("vision_cfg", "timm_model"), ("text_cfg", "hf_model")):
        if isinstance(kept.get(name), Mapping):
            kept[name] = {**kept[name], f"{pretrained}_pretrained": False}
    return kept


class VisualTower(Tower):
    """A visual encoder on normalized pictures (N, C, S, S)."""

    def __init__(self, visual: nn.Module, normalize: Normalize) -> None:
        super().__init__()
        self.visual = visual
        self.normalize = normalize

    def prepare(self, raw: Tensor) -> Tensor:
        return self.normalize(raw)

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.visual(features)
        return embedded


class TextTower(Tower):
    """A text encoder on token ids (N, length)."""

    def __init__(self, text: nn.Module) -> None:
        super().__init__()
        self.text = text

    def prepare(self, raw: Tensor) -> Tensor:
        return raw.long()

    def forward(self, features: Tensor) -> Tensor:
        embedded: Tensor = self.text(features)
        return embedded


class ClipImageTower(VisualTower):
    """ResNet or vision transformer of an open_clip architecture, for (3, S, S) pictures.

    Args:
        arch: Name in open_clip, such as ``RN50`` or ``ViT-B-32``.
        options: Override entries of its ``vision_cfg``, such as ``layers`` and ``width``.
    """

    def __init__(
        self,
        spec: Spec,
        dim: int,
        arch: str = "ViT-B-32",
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        **options: Any,
    ) -> None:
        require(spec, "image", "clip_image")
        config = architecture(arch)
        # The transformer's places and the ResNet's attention pool are made for one size.
        vision = config["vision_cfg"] | options
        vision |= {"image_size": spec.shape[-1], "timm_model_pretrained": False}
        config |= {"embed_dim": dim, "vision_cfg": vision, "text_cfg": dict(_LEAST_TEXT)}
        super().__init__(open_clip.CustomTextCLIP(**config).visual, Normalize(spec, mean, std))


class ClipTextTower(TextTower):
    """Text transformer of an open_clip architecture, for ids of CLIP's tokenizer.

    Args:
        arch: Name in open_clip.
        options: Override entries of its ``text_cfg``, such as ``layers`` and ``width``.
    """

    def __init__(self, spec: Spec, dim: int, arch: str = "ViT-B-32", **options: Any) -> None:
        require(spec, "tokens", "clip_text")
        config = architecture(arch)
        text = config["text_cfg"] | options
        text |= {"context_length": spec.shape[0], "vocab_size": spec.vocab}
        text |= {"hf_model_pretrained": False}
        config |= {"embed_dim": dim, "vision_cfg": dict(_LEAST_IMAGE), "text_cfg": text}
        super().__init__(open_clip.CustomTextCLIP(**config).text)
