"""Writes the tables of configuration.md: every key of a configuration, from the models themselves.

`make docs` runs it. The page is committed, so that it can be read beside the code; a test fails
when it is out of date.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from multimem_ray.config import Config
from multimem_ray.modalities import registry

PAGE = Path(__file__).parent / "configuration.md"
MARK = "<!-- Below: written by docs/generate.py from the models in multimem_ray/config. -->\n"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_WORDS = {
    "number": "number",
    "integer": "integer",
    "string": "text",
    "boolean": "true or false",
    "object": "mapping",
}


@dataclass(frozen=True)
class Key:
    """One key of a section: its dotted name and what a reader needs to set it."""

    name: str
    type: str
    default: str
    description: str


def keys(section: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every key of a section, those of sections below it under dotted names."""
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        path, inner = f"{prefix}{name}", _section_in(field.annotation)
        if inner is not field.annotation:
            value = field.get_default(call_default_factory=True)
            default = "needed" if field.is_required() else _default(value)
            yield Key(path, _type(properties[name]), default, field.description or "")
        if inner is not None:
            several = "list" in str(field.annotation)
            yield from keys(inner, f"{path}[]." if several else f"{path}.")


def configuration() -> str:
    """All keys as Markdown: a table for each section, and for the settings of each modality."""
    names = list(Config.model_fields)
    whole = [key for key in keys(Config) if key.name in names]
    parts = ["## Top level", "", *_table(whole)]
    for name, field in Config.model_fields.items():
        if (section := _section_in(field.annotation)) is not None:
            parts += _part(name, section)
    for name in registry.names():
        parts += _part(f"modalities.{name}", registry.get(name).Settings)
    return "\n".join(parts) + "\n"


def _part(name: str, section: type[BaseModel]) -> list[str]:
    about = " ".join((section.__doc__ or "").split())
    return ["", f"## {name}", "", about, "", *_table(keys(section, f"{name}."))]


def _table(rows: Iterable[Key]) -> list[str]:
    lines = ["| key | meaning |", "|---|---|"]
    for key in rows:
        facts = f"{key.type}; {key.default}".replace("|", "\\|")
        about = key.description.replace("*", "\\*")
        lines.append(f"| `{key.name}` | {about}<br>*{facts}* |")
    return lines


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds, be it optional or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_section_in(argument) for argument in get_args(annotation))
    return next((section for section in inner if section is not None), None)


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    match schema:
        case {"anyOf": options}:
            words = _either(_type(option) for option in options if option != {"type": "null"})
        case {"enum": values}:
            words = _either(f"`{value}`" for value in values)
        case {"const": value}:
            words = f"`{value}`"
        case {"$ref": _}:
            words = "section"
        case {"type": "array", "prefixItems": items}:
            words = f"[{', '.join(_type(item) for item in items)}]"
        case {"type": "array", "items": item}:
            words = f"list of {_type(item)}"
        case {"type": "object", "additionalProperties": Mapping() as values}:
            words = f"mapping to {_type(values)}"
        case {"type": kind}:
            bounds = (f"{sign} {schema[b]:,.12g}" for b, sign in _BOUNDS.items() if b in schema)
            words = f"{_WORDS[kind]} {', '.join(bounds)}".strip()
    return words


def _either(options: Iterable[str]) -> str:
    *rest, last = options
    return f"{', '.join(rest)} or {last}" if rest else last


def _default(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, str):
        # The folder for temporary files is another one on each machine.
        value = value.replace(tempfile.gettempdir(), "(temporary folder)")
    return f"default `{json.dumps(value)}`"


def page() -> str:
    """The page as it should be: what a person wrote above the mark, the tables below."""
    introduction, _, _ = PAGE.read_text().partition(MARK)
    return f"{introduction}{MARK}\n{configuration()}"


if __name__ == "__main__":
    PAGE.write_text(page())
