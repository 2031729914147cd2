"""A sample as it stands in a shard, and the record of one that could not be used.

A sample is what WebDataset calls by one key: the adjacent members of an archive whose names are
equal up to the first dot of the base name. It holds bytes only; what they mean is decided by the
modalities.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, cast

from multimem_ray.config import DEFAULT_LIMITS, LimitsConfig
from multimem_ray.errors import SampleError

_PACKED = ".gz"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a shard.

    Attributes:
        key: Member name up to the first dot of its base name; directories are kept.
        shard: Path or URL of the shard, as found.
        index: Position among the samples of its shard, from 0; unusable ones count too.
        members: Extension (lower case, no leading dot) to content, as it stands there.
        limits: Of what its JSON and its packed members may become in memory.
    """

    key: str
    shard: str
    index: int
    members: Mapping[str, bytes]
    limits: LimitsConfig = attribute(default=DEFAULT_LIMITS, repr=False, compare=False)
    _unpacked: dict[str, bytes] | None = attribute(
        default=None, init=False, repr=False, compare=False
    )
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
        data = self.member("json")
        if data is None:
            return {}
        containers = data.count(b"{") + data.count(b"[")
        if containers + data.count(b",") > self.limits.json_values:
            # Two bytes may become a hundred: counted before any of them is parsed.
            raise self._beyond("the .json member has more values than", "json_values")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            reason = f"the .json member cannot be read: {error}; repair or remove it"
            raise SampleError(reason, kind="bad_json", stage="read") from error
        if not isinstance(value, dict):
            reason = f"the .json member is a {type(value).__name__}; it must be an object"
            raise SampleError(reason, kind="bad_json", stage="read")
        depth = self.limits.json_depth
        if containers > depth and not _within(value, depth):
            raise self._beyond("the .json member is nested more deeply than", "json_depth")
        return _encodable(value) if b"\\ud" in data.lower() else value

    @property
    def extensions(self) -> Iterator[str]:
        """Of its members, as fields name them: ``txt`` for what is packed in ``txt.gz``."""
        return (extension.removesuffix(_PACKED) for extension in self.members)

    @property
    def size(self) -> int:
        """Bytes of its members."""
        return sum(map(len, self.members.values()))

    def member(self, extension: str) -> bytes | None:
        """Content of a member, or None; of ``txt``, what ``txt.gz`` holds if there is no other.

        Raises:
            SampleError: The packed member is damaged, or larger than ``limits`` unpacked.
        """
        data = self.members.get(extension)
        if data is None and (packed := self.members.get(extension + _PACKED)) is not None:
            if self._unpacked is None:
                object.__setattr__(self, "_unpacked", {})
            unpacked = cast("dict[str, bytes]", self._unpacked)
            data = unpacked.get(extension)
            if data is None:
                data = unpacked[extension] = self._unpack(extension, packed)
        return data

    def _unpack(self, extension: str, packed: bytes) -> bytes:
        limit, most = self.limits.bytes_of(extension)
        parts, reason = list[bytes](), ""
        # A file of gzip may be several, one behind the other (RFC 1952, 2.2).
        while packed and most >= 0 and not reason:
            stream = zlib.decompressobj(wbits=31)
            try:
                parts.append(stream.decompress(packed, most + 1))
            except zlib.error as error:
                reason = str(error)
                break
            most -= len(parts[-1])
            if most >= 0 and not stream.eof:
                reason = "it ends too early"
            packed = stream.unused_data.lstrip(b"\0")
        if reason:
            reason = f"member .{extension}{_PACKED} cannot be unpacked: {reason}"
            raise SampleError(reason, kind="undecodable", stage="read")
        if most < 0:
            raise self._beyond(f"member .{extension}{_PACKED} unpacks to more bytes than", limit)
        return b"".join(parts)

    def _beyond(self, what: str, limit: str) -> SampleError:
        reason = f"{what} the limit data.limits.{limit} = {getattr(self.limits, limit)}"
        return SampleError(reason, kind="too_large", stage="read")

    def field(self, path: str) -> Any | None:
        """The value at ``path``, or ``None`` if the sample has none.

        ``json.a.b`` is a value inside the ``.json`` member; any other path is an extension and
        gives the member's bytes.

        Raises:
            SampleError: A JSON field is asked for and the member is no JSON object.
        """
        if not path.startswith("json."):
            return self.member(path)
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


def _within(value: Any, depth: int) -> bool:
    """Whether lists and objects of parsed JSON lie in one another at most so deeply."""
    level = [value]
    for _ in range(depth):
        below = list[Any]()
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return True
    return False


def _encodable(value: Any) -> Any:
    """Replace lone surrogates, which JSON can escape but Parquet and HTML cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    return value
