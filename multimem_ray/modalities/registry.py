"""Which modalities there are: every file of this package, and what plugins add.

A modality registers itself where it is defined; the files are imported at the first question, so
adding one is adding a file. Modules of the user's own are imported by :func:`load_plugins`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.base import Modality

_Class = TypeVar("_Class", bound=type[Modality])
_KNOWN: dict[str, type[Modality]] = {}


def register(cls: _Class) -> _Class:
    """Class decorator: make a modality known under its name.

    Raises:
        ConfigError: Another class has that name, or a required attribute is missing.
    """
    where = f"{cls.__module__}.{cls.__qualname__}"
    for attribute in ("name", "extensions"):
        if not getattr(cls, attribute, None):
            raise ConfigError(f"modality {where}: set the class attribute '{attribute}'")
    if cls.views is Modality.views and cls.view is Modality.view:
        raise ConfigError(
            f"modality {where}: define `views`, which makes views of a batch in torch, or `view`, "
            "which makes one in NumPy"
        )
    known = _KNOWN.get(cls.name)
    if known is not None and f"{known.__module__}.{known.__qualname__}" != where:
        raise ConfigError(
            f"modality '{cls.name}' is defined by {known.__module__} and by {cls.__module__}; "
            "rename one of them"
        )
    _KNOWN[cls.name] = cls
    return cls


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register further modalities (``data.plugins``).

    Raises:
        ConfigError: A module cannot be imported.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(
                f"data.plugins: '{module}' cannot be imported: {error}; put its folder on "
                "PYTHONPATH, or into the working directory of the job"
            ) from error


def names() -> tuple[str, ...]:
    """Names of all known modalities, sorted."""
    _discover()
    return tuple(sorted(_KNOWN))


def get(name: str) -> type[Modality]:
    """The class of a modality.

    Raises:
        ConfigError: There is none of that name; the nearest known one is named.
    """
    _discover()
    try:
        return _KNOWN[name]
    except KeyError:
        raise ConfigError(
            f"unknown modality '{name}'{nearest(name, _KNOWN)}; others come in by data.plugins"
        ) from None


def create(name: str, settings: Mapping[str, Any] | None = None) -> Modality:
    """A modality with the given settings, defaults for the rest.

    Raises:
        ConfigError: The modality or a setting is unknown, or a value is wrong.
    """
    cls = get(name)
    given = dict(settings or {})
    for key in given:
        if key not in cls.Settings.model_fields:
            hint = nearest(str(key), cls.Settings.model_fields)
            raise ConfigError(f"unknown setting 'modalities.{name}.{key}'{hint}")
    try:
        return cls(cls.Settings.model_validate(given))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("modalities", name, *(str(part) for part in first["loc"])))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{where}: {message} (given: {first.get('input')!r})") from error


def _discover() -> None:
    package = importlib.import_module("multimem_ray.modalities")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
