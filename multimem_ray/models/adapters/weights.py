"""Weights as others save them: found in what is around them, under the names of the model.

Trainers wrap them: open_clip's has them in ``state_dict``, Lightning puts ``model.`` before each
name, ``torch.compile`` puts ``_orig_mod.``, data parallelism ``module.``.
"""

from __future__ import annotations

import functools
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from multimem_ray.errors import ModelError
from multimem_ray.models.checkpoint import unprefixed

logger = logging.getLogger(__name__)

# What weights are called in what trainers save, by preference.
_NAMES = ("state_dict", "model", "model_state_dict", "module", "weights", "state_dict_ema", "ema")


def read_checkpoint(file: Path, anchor: str, *, shapes: bool = False) -> dict[str, Tensor]:
    """Tensors by the names of the model, from safetensors or from a pickle of plain tensors.

    Args:
        file: The weights; a pickle is read without anything but tensors and plain values.
        anchor: Name of a tensor that every such model has at its top.
        shapes: Only names and shapes are wanted, as tensors on the device ``meta``.

    Raises:
        ModelError: Unreadable, or no weights in it.
    """
    device = "meta" if shapes else "cpu"
    try:
        if file.suffix == ".safetensors":
            return _of_model(_safetensors(file, shapes=shapes), anchor, file)
        content = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file}: not plain tensors: a pickle that holds more is not read; save the model's "
            "state_dict() as safetensors"
        ) from error
    except (OSError, RuntimeError, SafetensorError, EOFError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"{file}: no weights, or not plain tensors: {said}") from error
    name, tensors, others = _unwrapped(content)
    if tensors is None:
        held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content)
        raise ModelError(f"{file}: no weights under a name that is known; it holds {held}")
    if others:
        say_once(
            f"{file}: it holds {', '.join(others)} beside '{name}'; '{name}' is taken: to take "
            "another, save it alone"
        )
    return _of_model(tensors, anchor, file)


@functools.lru_cache(maxsize=256)
def say_once(text: str) -> None:
    """Warn of a difference, once in a process."""
    logger.warning(text)


def _of_model(tensors: Mapping[str, Tensor], anchor: str, file: Path) -> dict[str, Tensor]:
    """The tensors beside the anchor, under the names that they have there."""
    named = unprefixed(tensors)
    places = [name.removesuffix(anchor) for name in named if name.endswith(f".{anchor}")]
    if anchor in named or not places:
        return named
    place = "model." if "model." in places else places[0]
    kept = {n.removeprefix(place): value for n, value in named.items() if n.startswith(place)}
    left = [name for name in named if not name.startswith(place)]
    if left:
        say_once(f"{file}: '{place}*' is taken; {len(left)} tensors are left, such as {left[0]}")
    return kept


def _unwrapped(content: object) -> tuple[str, dict[str, Tensor] | None, list[str]]:
    """The name that the weights stand under, the weights, and the names of other weights."""
    if not isinstance(content, Mapping):
        return "", None, []
    if _are_weights(content):
        return "", {k: v for k, v in content.items() if isinstance(v, Tensor)}, []
    # Optimizers keep their tensors deeper.
    within = {str(name): part for name, part in content.items() if _are_weights(part)}
    ranks = {name: rank for rank, name in enumerate(_NAMES)}
    known = sorted(within, key=lambda name: ranks.get(name, len(ranks)))
    if not known:
        inner = [part for name in _NAMES if isinstance(part := content.get(name), Mapping)]
        return _unwrapped(inner[0]) if inner else ("", None, [])
    name = known[0]
    return name, dict(within[name]), known[1:]


def _are_weights(content: Any) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return sum(isinstance(value, Tensor) for value in content.values()) * 2 > len(content)


def _safetensors(file: Path, *, shapes: bool) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        if not shapes:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return {
            name: torch.empty(opened.get_slice(name).get_shape(), device="meta")
            for name in opened.keys()  # noqa: SIM118
        }
