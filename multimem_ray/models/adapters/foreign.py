"""What the files of a checkpoint may bring about: nothing but what is built in, unless allowed.

A checkpoint may come from a stranger. Its description can name a plugin, which is code; a model or
tokenizer of a hub, which would be fetched; and its weights can be a pickle. Each is refused unless
the user's own configuration allows it by that name in ``model.allow``. A file of weights that the
configuration names itself needs no more than that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import open_clip

from multimem_ray.errors import ModelError

PICKLE = "pickle"

# Read without Python objects; all else goes through a pickle.
_PLAIN = (".safetensors", ".npz", ".npy")
_OF_A_HUB = ("hf_model_name", "hf_tokenizer_name")


def require_allowed(content: Any, source: str, allow: Collection[str]) -> None:
    """Check what a description asks for.

    Args:
        content: What was read from the file, at any depth.
        source: The file, for the error.
        allow: ``model.allow``.

    Raises:
        ModelError: Code or a hub that is not allowed.
    """
    for name in _asked_for(content):
        if name not in allow:
            what = "a plugin, which is code" if name.startswith("plugin:") else "a download"
            raise ModelError(
                f"{source}: asks for '{name}', {what}; if you trust it, add '{name}' to model.allow"
            )


def require_plain(weights: Path, allow: Collection[str]) -> None:
    """Check the format of weights.

    Raises:
        ModelError: It is a pickle, and pickles are not allowed.
    """
    if weights.suffix not in _PLAIN and PICKLE not in allow:
        raise ModelError(
            f"{weights}: a pickle; convert it to safetensors, or add '{PICKLE}' to model.allow "
            "(torch then loads it, and nothing but tensors)"
        )


def _asked_for(content: Any) -> Iterator[str]:
    """Names of plugins and of what lies on a hub, wherever they stand in a description."""
    if isinstance(content, list):
        for item in content:
            yield from _asked_for(item)
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if not isinstance(value, str):
            yield from _asked_for(value)
        elif key == "adapter":
            yield from _of_adapter(value)
        elif key == "tokenizer" and value.startswith("hf:"):
            yield from _of_hub(value.removeprefix("hf:"))
        elif key == "tokenizer" and value.startswith("open_clip:"):
            yield from _of_open_clip_tokenizer(value.removeprefix("open_clip:"))
        elif key in _OF_A_HUB:
            yield from _of_hub(value)
        elif key == "timm_model_name" and ":" in value:
            yield value
        elif key == "arch":
            yield from _of_architecture(value)


def _of_adapter(name: str) -> Iterator[str]:
    scheme, _, place = name.partition(":")
    if scheme == "open_clip":
        yield from _of_architecture(place.partition("/")[0])
    elif scheme == "hf":
        yield from _of_hub(place)
    elif scheme == "plugin":
        yield name


def _of_hub(place: str) -> Iterator[str]:
    if not Path(place).expanduser().is_dir():
        yield f"hf:{place}"


def _of_open_clip_tokenizer(place: str) -> Iterator[str]:
    if Path(place).expanduser().is_dir():
        return
    content = {} if ":" in place else open_clip.get_model_config(place) or {}
    named = content.get("text_cfg", {}).get("hf_tokenizer_name")
    yield from [place] if ":" in place else _of_hub(named) if named else []


def _of_architecture(arch: str) -> Iterator[str]:
    # open_clip takes "hf-hub:ORG/NAME" for an architecture too, and fetches it when it is asked.
    if ":" in arch:
        yield arch
        return
    content = open_clip.get_model_config(arch) or {}
    for part in content.values():
        if isinstance(part, Mapping):
            # Its tokenizer is named again where one is used.
            yield from _asked_for({k: v for k, v in part.items() if k != "hf_tokenizer_name"})
