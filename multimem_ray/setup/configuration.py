"""From a YAML file and overrides to a validated configuration with nothing left to be looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import (
    BaseModel,
    ValidationError,
)

from multimem_ray.config.base import Section, nearest
from multimem_ray.config.root import Config
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.setup.yaml_text import parse, parse_value, with_paths
from multimem_ray.storage import Storage, require_no_credentials


def load(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Iterable[str] | Mapping[str, Any] | None = None,
) -> Config:
    """A configuration from a YAML file or a mapping, with overrides, complete and validated.

    Args:
        source: Path of a YAML file, or what would stand in one.
        overrides: ``["training.epochs=3"]``, with values in YAML, or ``{"training.epochs": 3}``.

    Raises:
        ConfigError: The file is missing or no YAML, a key is unknown (with the nearest known
            name), or a value is wrong.
    """
    raw = source if isinstance(source, Mapping) else {} if source is None else _read(source)
    return resolve(apply_overrides(raw, overrides or ()))


def _read(path: str | Path) -> Mapping[str, Any]:
    storage = Storage()
    try:
        if storage.is_remote(str(path)):
            content = storage.read_bytes(str(path))
        else:
            content = Path(path).read_bytes()
        raw = parse(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if raw is None:
        return {}  # emptied, as a section may be
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a config file is a mapping of keys to values")
    return raw


def apply_overrides(
    raw: Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any]
) -> dict[str, Any]:
    """Set dotted keys: ``training.epochs=3``, the value read as YAML, or key and value."""
    merged = _merge({}, _expanded(raw))
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_parsed, overrides)
    for dotted, value in pairs:
        place: Any = merged
        *parents, last = dotted.split(".")
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise ConfigError(f"--set {dotted}: {parent} is a value, not a section")
        place[last] = value
    return merged


def _parsed(item: str) -> tuple[str, Any]:
    dotted, equals, text = item.partition("=")
    if not equals or not dotted.strip():
        raise ConfigError(f"--set {item}: write key=value, such as training.epochs=3")
    try:
        return dotted.strip(), parse_value(text)
    except ConfigError as error:
        raise ConfigError(f"--set {item}: {error}") from error


def resolve(raw: Mapping[str, Any]) -> Config:
    """Complete a raw mapping from its preset and validate it.

    Raises:
        ConfigError: See :func:`load`.
    """
    _require_no_credentials(raw)
    raw = with_paths(_without_emptied(Config, _expanded(raw)))
    raw = _with_embeddings(raw)
    _refuse_unknown(Config, raw, "")
    complete = _merge(_of_other_kinds(_defaults(raw), raw), raw)
    try:
        return Config.model_validate(complete)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def _require_no_credentials(value: Any, key: str = "") -> None:
    """Raise ConfigError where a URL anywhere in a configuration has a user or a password in it."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            _require_no_credentials(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            _require_no_credentials(item, key)
    elif isinstance(value, str):
        try:
            require_no_credentials(value, key)
        except StorageError as error:
            raise ConfigError(str(error)) from None


def _expanded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The short form ``model: NAME`` written out; NAME is a preset, or an adapter by its colon."""
    name = raw.get("model")
    if not isinstance(name, str):
        return dict(raw)
    return {**raw, "model": {"adapter" if ":" in name else "preset": name}}


def _with_embeddings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from ``data.embeddings`` for design and held-out set; the user's own wins."""
    data = raw.get("data")
    given = data.get("embeddings") if isinstance(data, Mapping) else None
    if not given:
        return dict(raw)
    from multimem_ray.embeddings.recorded import recorded_defaults

    recorded = recorded_defaults(given, raw)
    target = (recorded.get("design") or {}).get("target")
    if target:
        # It was read from a file, and whoever describes a target may import it.
        from multimem_ray.models.adapters.foreign import require_allowed

        require_allowed({"adapter": target["checkpoint"]}, "data.embeddings.run", _allowed(raw))
    return _merge(recorded, raw)


def _defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What preset, adapter and target give for the sections."""
    return _merge(_of_references(raw), _of_target(raw))


def _of_target(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a target with an architecture of its own needs: references take the same."""
    design = raw.get("design")
    target = design.get("target") if isinstance(design, Mapping) else None
    checkpoint = target.get("checkpoint") if isinstance(target, Mapping) else None
    if not isinstance(checkpoint, str):
        return {}
    from multimem_ray.models.adapters import adapter_defaults, is_adapter

    if not is_adapter(checkpoint):
        return {}
    defaults = adapter_defaults(checkpoint, _allowed(raw))
    return {
        "modalities": defaults.get("modalities", {}),
        "model": {"modalities": defaults["model"]["modalities"]},
    }


def _allowed(raw: Mapping[str, Any]) -> list[str]:
    model = raw.get("model")
    allow = model.get("allow") if isinstance(model, Mapping) else None
    return [str(name) for name in allow] if isinstance(allow, list) else []


def _of_references(raw: Mapping[str, Any]) -> dict[str, Any]:
    from multimem_ray.models.presets import preset_defaults

    model = raw.get("model")
    model = model if isinstance(model, Mapping) else {}
    if not model.get("adapter"):
        return preset_defaults(str(model.get("preset") or "tiny"))
    from multimem_ray.models.adapters import adapter_defaults

    defaults = adapter_defaults(str(model["adapter"]), _allowed(raw))
    if model.get("preset"):
        training = preset_defaults(str(model["preset"])).get("training", {})
        defaults["training"] = training
    modalities = {*defaults["model"]["modalities"], *(model.get("towers") or {})}
    defaults["model"] |= {"modalities": sorted(modalities), "preset": None}
    return defaults


def _of_other_kinds(defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults without the options of towers for which the user names another kind."""
    model = raw.get("model")
    given = (model.get("towers") if isinstance(model, Mapping) else None) or {}
    kept = _merge({}, defaults)
    towers = kept.get("model", {}).get("towers", {})
    for modality, settings in given.items():
        kind = settings.get("kind") if isinstance(settings, Mapping) else None
        if kind is not None and towers.get(modality, {}).get("kind") != kind:
            towers.pop(modality, None)
    return kept


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` wins; sections are merged, everything else is replaced."""
    merged = {k: _merge(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()}
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = _merge(below if isinstance(below, dict) else {}, value)
        elif value is not None or key not in merged:
            merged[key] = value
    return merged


def _section_of(annotation: Any) -> type[Section] | None:
    for candidate in (annotation, *(get_args(annotation) if get_origin(annotation) else ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _without_emptied(section: type[Section], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The raw mapping without sections that have nothing in them, as when all is a comment."""
    kept = {}
    for key, value in raw.items():
        field = section.model_fields.get(str(key))
        below = _section_of(field.annotation) if field is not None else None
        if below is None:
            kept[key] = value
        elif isinstance(value, Mapping):
            kept[key] = _without_emptied(below, value)
        elif value is not None:
            kept[key] = value
    return kept


def _refuse_unknown(section: type[Section], raw: Mapping[str, Any], prefix: str) -> None:
    for key, value in raw.items():
        field = section.model_fields.get(str(key))
        if field is None:
            hint = nearest(str(key), section.model_fields)
            raise ConfigError(f"unknown config key '{prefix}{key}'{hint}")
        below = _section_of(field.annotation)
        if below is not None and isinstance(value, Mapping):
            _refuse_unknown(below, value, f"{prefix}{key}.")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"] if not isinstance(part, int)) or "config"
        if item["type"] == "missing":
            lines.append(f"{where}: required, and not given")
        else:
            message = item["msg"].removeprefix("Value error, ")
            given = item.get("input")
            shown = "" if isinstance(given, (Mapping, BaseModel)) else f" (given: {given!r})"
            lines.append(f"{where}: {message}{shown}")
    return "; ".join(dict.fromkeys(lines))
