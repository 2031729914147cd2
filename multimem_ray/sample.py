"""A sample as it stands in a shard, and the record of one that could not be used.

A sample is what WebDataset calls by one key: the adjacent members of an archive whose names are
equal up to the first dot of the base name. It holds bytes only; what they mean is decided by the
modalities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, cast

from multimem_ray.errors import SampleError


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a shard.

    Attributes:
        key: Member name up to the first dot of its base name; directories are kept.
        shard: Path or URL of the shard, as found.
        index: Position among the samples of its shard, from 0; unusable ones count too.
        members: Extension (lower case, no leading dot) to content.
    """

    key: str
    shard: str
    index: int
    members: Mapping[str, bytes]
    _parsed: dict[str, Any] | None = attribute(default=None, init=False, repr=False, compare=False)

    def metadata(self) -> dict[str, Any]:
        """The parsed ``.json`` member; empty if there is none.

        Raises:
            SampleError: It is no JSON object (``bad_json``).
        """
        if self._parsed is None:
            # Label, group and caption may all lie here: parsed once.
            object.__setattr__(self, "_parsed", self._parse())
        return cast("dict[str, Any]", self._parsed)

    def _parse(self) -> dict[str, Any]:
        data = self.members.get("json")
        if data is None:
            return {}
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            reason = f"the .json member cannot be read: {error}; repair or remove it"
            raise SampleError(reason, kind="bad_json", stage="read") from error
        if not isinstance(value, dict):
            reason = f"the .json member is a {type(value).__name__}; it must be an object"
            raise SampleError(reason, kind="bad_json", stage="read")
        return _encodable(value) if b"\\ud" in data.lower() else value

    def field(self, path: str) -> Any | None:
        """The value at ``path``, or ``None`` if the sample has none.

        ``json.a.b`` is a value inside the ``.json`` member; any other path is an extension and
        gives the member's bytes.

        Raises:
            SampleError: A JSON field is asked for and the member is no JSON object.
        """
        if not path.startswith("json."):
            return self.members.get(path)
        value: Any = self.metadata()
        for part in path.split(".")[1:]:
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample, or a part of a shard, that could not be used: one row of ``errors/``.

    Attributes:
        shard: Path or URL of the shard.
        key: Key of the sample; ``None`` where the shard itself is at fault.
        index: Position of the sample in its shard; ``None`` where there is none.
        stage: ``read``, ``select``, ``decode`` or ``score``.
        error: Short stable kind, such as ``truncated``.
        detail: What is wrong, in words for a person, with the way out.
    """

    shard: str
    key: str | None
    index: int | None
    stage: str
    error: str
    detail: str


def _encodable(value: Any) -> Any:
    """Replace lone surrogates, which JSON can escape but Parquet and HTML cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return value
