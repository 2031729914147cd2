"""YAML as people mean it: the rules of YAML 1.2, and nothing that is silently another value.

PyYAML reads YAML 1.1, where ``010`` is eight, ``no`` is false, even as a name, ``12:30`` is 750,
``1e3`` is text, and of a key that stands twice the last one counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from multimem_ray.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_PATHS = re.compile(
    r"output|data\.(shards|planted|embeddings(\.run|\.held_out|\.models(\.files|\.keys|\.members"
    r"|\.arrays\..*)?)?)|held_out\.shards|design\.(given|target)\.(checkpoint|members)|design\.group"
    r"|model\.(init|adapter)|mitigation\.(references|samples)|resources\.cache_dir"
)
_SCALARS = {
    "tag:yaml.org,2002:null": r"^(?:~|null|Null|NULL|)$",
    "tag:yaml.org,2002:bool": r"^(?:true|True|TRUE|false|False|FALSE)$",
    "tag:yaml.org,2002:int": r"^[-+]?[0-9][0-9_]*$|^0o[0-7]+$|^0x[0-9a-fA-F]+$",
    "tag:yaml.org,2002:float": r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
}


class _Loader(yaml.SafeLoader):
    """Scalars of YAML 1.2; names are text; a name that stands twice is refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        own = {id(key) for key, _ in node.value}
        self.flatten_mapping(node)  # puts what << brings before the mapping's own
        mapping: dict[Hashable, Any] = {}
        names: set[Hashable] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refusal("a name must be text", key_node)
            # ``7`` and ``no`` are names of modalities as good as others.
            key = key_node.value
            if id(key_node) in own:
                if key in names:
                    raise _refusal(f"'{key}' stands twice; write it once", key_node)
                names.add(key)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def _refusal(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    if re.match(r"[-+]?0[0-9]", text):
        raise _refusal(
            f"{node.value} is eight or ten, by who reads it: write '{node.value}' in quotes for "
            "text, or a number without leading zeros",
            node,
        )
    return int(text, 0)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    return loader.construct_mapping(node, deep=True)


for _tag, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str) -> Any:
    """What a YAML document says.

    Raises:
        ConfigError: It is no YAML, or says something that could be read in two ways.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {_one_line(error)}") from error


def parse_value(text: str) -> Any:
    """The value of an override: as YAML, but that ``#`` begins no comment in it.

    Raises:
        ConfigError: See :func:`parse`.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value is not valid YAML: {_one_line(error)}") from error
    if node is not None and "#" in text[node.end_mark.index :]:
        if not isinstance(node, yaml.ScalarNode) or node.style is not None:
            raise ConfigError("the value ends before its '#': put quotes around the part with '#'")
        return text.strip()
    return text.strip() or None if node is None else parse(text)


def expanded(value: Any, key: str) -> Any:
    """A path, or paths, with ``~`` and variables of the environment put in; ``$$`` is a dollar.

    Args:
        key: The key of the configuration, for the message.

    Raises:
        ConfigError: A variable that is not set.
    """
    if isinstance(value, list):
        return [expanded(item, key) for item in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if name not in os.environ:
            raise ConfigError(f"{key}: ${name} is not set ({value}); write $$ for a dollar")
        return os.environ[name]

    pieces = _VARIABLE.sub(variable, value).split("::")
    return "::".join(os.path.expanduser(p) if p.startswith("~") else p for p in pieces)  # noqa: PTH111


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def with_paths(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A raw configuration in which the paths are :func:`expanded`."""

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            below = f"{key}." if key else ""
            return {name: walk(item, f"{below}{name}") for name, item in value.items()}
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            return [walk(item, key) for item in value]
        return expanded(value, key) if _PATHS.fullmatch(key) else value

    walked: dict[str, Any] = walk(raw, "")
    return walked
