"""Presets: named defaults for ``model``, ``modalities`` and ``training``, one YAML file each.

A new architecture made of known towers is a new file here and no code.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml

from multimem_ray.errors import ConfigError

_SECTIONS = {"model", "modalities", "training"}


def preset_names() -> list[str]:
    """Names of all presets in the package."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def preset_defaults(name: str) -> dict[str, Any]:
    """What a preset gives for the configuration's sections.

    Raises:
        ConfigError: There is no such preset; the message has the nearest name.
    """
    from multimem_ray.config import nearest

    known = preset_names()
    if name not in known:
        raise ConfigError(f"model.preset: there is no preset '{name}'{nearest(name, known)}")
    text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return {section: content[section] for section in _SECTIONS if section in content}


def preset_description(name: str) -> str:
    """The one line that a preset says of itself."""
    text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    return str(yaml.safe_load(text).get("description", ""))
