"""Adapters: the user's own model in the place of a preset, with everything else unchanged.

    open_clip:ARCH                  an architecture of open_clip, from scratch
    open_clip:ARCH/PRETRAINED       the same with weights: a tag of open_clip or a file
    hf:ORG/NAME, hf:FOLDER          CLIP, SigLIP and CLAP models of transformers (extra ``hf``)
    local:FOLDER                    a folder with a reference model of ours, an open_clip or a
                                    transformers checkpoint
    plugin:package.module:factory   your own code; see :mod:`multimem_ray.models.adapters.plugin`

An adapter yields towers and the settings that its inputs need; training, scoring and loss are the
same for all. Modalities that it does not embed may be given towers of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.models.adapters.base import Adapter, Description
from multimem_ray.models.towers import Adapted

__all__ = [
    "Adapted",
    "Adapter",
    "Description",
    "absolute_adapter",
    "adapter",
    "adapter_defaults",
    "is_adapter",
]

# Where each scheme is defined; imported when it is used, for the libraries behind them are large.
_SCHEMES = {
    "open_clip": "openclip:OpenClipAdapter",
    "hf": "huggingface:HuggingFaceAdapter",
    "local": "local:LocalAdapter",
    "plugin": "plugin:PluginAdapter",
}


def adapter(name: str, allow: Collection[str] = ()) -> Adapter:
    """The adapter that ``model.adapter`` names.

    Args:
        name: Scheme and place.
        allow: ``model.allow``: what files of its checkpoint may ask for.

    Raises:
        ConfigError: There is no such scheme, or nothing after it.
    """
    scheme, _, place = name.partition(":")
    if scheme not in _SCHEMES:
        raise ConfigError(f"model.adapter: unknown '{scheme}:'{nearest(scheme, _SCHEMES)}")
    module, _, cls = _SCHEMES[scheme].partition(":")
    kind: type[Adapter] = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return kind(name, place, allow)


def adapter_defaults(name: str, allow: Collection[str] = ()) -> dict[str, Any]:
    """What an adapter gives for the configuration's sections; see :class:`Description`."""
    return adapter(name, allow).describe().defaults()


def is_adapter(name: str) -> bool:
    """Whether a name begins with the scheme of an adapter."""
    return name.partition(":")[0] in _SCHEMES


def absolute_adapter(name: str) -> str:
    """The name with a local folder or file made absolute: workers run in folders of their own."""
    scheme, _, place = name.partition(":")
    arch, _, file = place.partition("/")
    if scheme == "open_clip" and file and Path(file).expanduser().exists():
        return f"{scheme}:{arch}/{Path(file).expanduser().absolute()}"
    if scheme in {"local", "hf"} and Path(place).expanduser().exists():
        return f"{scheme}:{Path(place).expanduser().absolute()}"
    return name
