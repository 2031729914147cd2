"""The settings of a tower that is half as wide, for references that cost less."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import default_kind, tower_class


def narrower(modality: str, spec: Spec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the same tower at half the width: about a quarter of the operations.

    Args:
        modality: Its name, for messages.
        spec: What its arrays look like.
        settings: Section ``model.towers.<modality>`` of the configuration.

    Raises:
        ConfigError: The kind of tower has no width.
    """
    kind = str(settings.get("kind", default_kind(spec)))
    if kind in ("clip_image", "clip_text"):
        from multimem_ray.models.towers.clip import architecture

        own = architecture(str(settings.get("arch", "ViT-B-32")))
        config = own["vision_cfg" if kind == "clip_image" else "text_cfg"] | dict(settings)
        if isinstance(config.get("width"), int):
            half = {"width": config["width"] // 2}
            # A picture's heads follow from the width.
            if kind == "clip_text":
                half["heads"] = max(1, config["heads"] // 2)
            return {**settings, **half}
    else:
        width = inspect.signature(tower_class(modality, kind)).parameters.get("width")
        if width is not None:
            return {**settings, "width": max(1, int(settings.get("width", width.default)) // 2)}
    raise ConfigError(
        f"design.proxy: smaller knows no narrower model.towers.{modality} of kind '{kind}'; name "
        "a preset as the proxy"
    )
