"""What an image processor of transformers makes of a picture, in our words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.models.adapters.weights import say_once

_PROCESSORS = {"clip": "CLIPImageProcessor", "siglip": "SiglipImageProcessor"}
_FILES = ("preprocessor_config.json", "processor_config.json")
# Pillow's numbers of its filters.
_KERNELS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Pictures:
    """How pictures are made.

    Args:
        fit: The setting ``modalities.image.fit``.
        mean: Per channel, subtracted after the scaling.
        std: Per channel, divided by.
        scale: What pixels, 0..255, are divided by first.
    """

    fit: dict[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    scale: float


def pictures_of(name: str, place: str, family: str, size: int) -> Pictures:
    """What the processor beside a model does.

    Args:
        name: The adapter's, for messages.
        place: Folder, or name on the hub.
        family: ``clip`` or ``siglip``.
        size: Side of the pictures that the model takes.

    Raises:
        ConfigError: It does what no picture of ours can be; says what.
        ModelError: It cannot be read.
    """
    processor = _processor(name, place, family, size)
    about = f"model.adapter: {name}: its image processor"
    try:
        _refuse_others(processor, about, size)
        scale = 1 / processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = [0.0] * 3, [1.0] * 3
        if processor.do_normalize:
            mean, std = (_three(v) for v in (processor.image_mean, processor.image_std))
        _require_finite(mean, std)
        return Pictures(_fit(processor, about, size), mean, std, scale)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ConfigError(
            f"{about} has a setting that is none ({error}); correct its {_FILES[0]}"
        ) from error


def _require_finite(mean: Sequence[float], std: Sequence[float]) -> None:
    if not all(math.isfinite(m) and math.isfinite(1 / s) for m, s in zip(mean, std, strict=True)):
        raise ValueError(f"image_mean {mean}, image_std {std}")


def _three(values: Any) -> list[float]:
    """A value for each channel, given as one or three."""
    many = [float(v) for v in values] if isinstance(values, Sequence) else [float(values)]
    return many * 3 if len(many) == 1 else many


def _processor(name: str, place: str, family: str, size: int) -> Any:
    import transformers

    folder = Path(place).expanduser()
    local = folder.is_dir()
    if local and not any((folder / file).is_file() for file in _FILES):
        say_once(f"{name}: no {_FILES[0]}; pictures are made as is usual for {family}")
        sides = {"height": size, "width": size}
        if family == "siglip":
            return transformers.SiglipImageProcessor(size=sides)
        return transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=sides)
    try:
        auto: Any = transformers.AutoImageProcessor
        found = auto.from_pretrained(place, trust_remote_code=False, local_files_only=local)
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"{name}: its image processor cannot be read: {said}") from error
    kind = type(found).__name__.removesuffix("Fast").removesuffix("Pil")
    if kind not in _PROCESSORS.values():
        known = " and ".join(_PROCESSORS.values())
        raise ConfigError(
            f"model.adapter: {name}: its pictures are made by {kind}; known are {known}, and "
            "others come in as a plugin"
        )
    return found


def _refuse_others(processor: Any, about: str, size: int) -> None:
    """Raises a ConfigError for what has no word here, or does not fit the model."""
    resized, cropped = processor.do_resize, getattr(processor, "do_center_crop", None)
    if getattr(processor, "do_pad", None):
        raise ConfigError(f"{about} pads (do_pad), which is not known here; use a plugin")
    if resized and processor.resample is not None and int(processor.resample) not in _KERNELS:
        raise ConfigError(
            f"{about} resizes by filter {int(processor.resample)} (resample); known are "
            f"{', '.join(f'{number} = {name}' for number, name in _KERNELS.items())}"
        )
    if cropped:
        sides = processor.crop_size["height"], processor.crop_size["width"]
        if sides != (size, size):
            raise ConfigError(f"{about} cuts out {sides} (crop_size), and the model takes {size}")
        return
    sides = (processor.size or {}).get("height"), (processor.size or {}).get("width")
    if not resized or sides != (size, size):
        raise ConfigError(
            f"{about} makes pictures of {dict(processor.size or {})} without a crop (do_resize = "
            f"{resized}), and the model takes squares of {size}"
        )


def _fit(processor: Any, about: str, size: int) -> dict[str, Any]:
    if not processor.do_resize:
        return {"resize": "none", "half": "down"}
    sides = {key: value for key, value in dict(processor.size).items() if value}
    if sides.keys() == {"shortest_edge"}:
        how, edge = "shortest", int(sides["shortest_edge"])
    elif sides.keys() == {"height", "width"} and sides["height"] == sides["width"]:
        how, edge = "squash", int(sides["height"])
    else:
        raise ConfigError(f"{about} resizes to {sides} (size); known are shortest_edge and squares")
    kernel = _KERNELS[2 if processor.resample is None else int(processor.resample)]
    if kernel == "lanczos":
        say_once(f"{about} is lanczos; transformers takes bicubic with torchvision before 0.27")
    fit = {"resize": how, "kernel": kernel, "half": "down"}
    return fit if edge == size else fit | {"edge": edge}
