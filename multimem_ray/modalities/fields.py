"""Where in a sample each modality lies.

A field is a list of alternatives, the first present wins: member extensions (``jpg;jpeg;png``),
or paths into the sample's JSON (``json.caption``), or both (``txt;json.caption``). What the user
does not say is found in the first samples of the shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError, SampleError
from multimem_ray.modalities import registry
from multimem_ray.sample import Sample

# Opening a clip takes a millisecond or so.
_LOOKED_INTO = 64


class Fields:
    """The parsed ``data.fields``; picklable.

    Args:
        fields: Modality to its alternatives, joined by ``;``.

    Raises:
        ConfigError: A modality is unknown, or its field names nothing.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.alternatives: dict[str, tuple[str, ...]] = {}
        for name in sorted(fields):
            registry.get(name)
            self.alternatives[name] = _parse(name, fields[name])

    @property
    def names(self) -> tuple[str, ...]:
        """The configured modalities, sorted."""
        return tuple(self.alternatives)

    def value(self, sample: Sample, name: str) -> Any | None:
        """Content of a modality: bytes of a member, a JSON value, or None if it is absent.

        Raises:
            SampleError: The sample's JSON is needed and unreadable (``bad_json``).
        """
        for alternative in self.alternatives[name]:
            value = sample.field(alternative)
            if value is not None:
                return value
        return None

    def check(self, samples: Sequence[Sample]) -> dict[str, int]:
        """How many of these samples have each modality.

        Raises:
            ConfigError: A configured modality is in none of them; says what is there.
        """
        counts = dict.fromkeys(self.names, 0)
        for sample in samples:
            for name in self.names:
                counts[name] += self._has(sample, name)
        for name, count in counts.items():
            if samples and not count:
                raise ConfigError(self._absent(name, samples))
        return counts

    def _has(self, sample: Sample, name: str) -> bool:
        try:
            return self.value(sample, name) is not None
        except SampleError:
            return False

    def _absent(self, name: str, samples: Sequence[Sample]) -> str:
        wanted = ";".join(self.alternatives[name])
        there = sorted({extension for sample in samples for extension in sample.extensions})
        return (
            f"data.fields.{name}: none of the first {len(samples)} samples (from "
            f"{samples[0].shard}) has '{wanted}'{nearest(wanted, there)}; correct "
            f"data.fields.{name} or leave it out"
        )


def find_fields(samples: Sequence[Sample]) -> dict[str, str]:
    """Every known modality found in these samples, in the form of ``data.fields``.

    Members come first; only a modality without any is looked for in the JSON, and then in the
    members of others (the sound of a video).

    Raises:
        ConfigError: Fewer than two modalities are there; says what is.
    """
    present = {extension for sample in samples for extension in sample.extensions}
    found: dict[str, str] = {}
    for name in registry.names():
        modality = registry.get(name)
        parts = [extension for extension in modality.extensions if extension in present]
        if not parts:
            paths = (f"json.{field}" for field in modality.json_fields)
            parts = [path for path in paths if any(_in_json(s, path) for s in samples)]
        if not parts:
            parts = [e for e in modality.carriers if e in present and _carried(name, samples, e)]
        if parts:
            found[name] = ";".join(parts)
    if len(found) < 2:
        there = ", ".join(sorted(present)) or "nothing"
        raise ConfigError(
            f"found {', '.join(found) or 'no modality'} in the first {len(samples)} samples, which "
            f"hold {there}; a comparison needs two modalities: set data.fields, such as "
            "{image: jpg, text: json.caption}"
        )
    return found


def _parse(name: str, field: str) -> tuple[str, ...]:
    parts = [part.strip().removeprefix(".") for part in str(field).split(";")]
    alternatives = tuple(
        part if part.startswith("json.") else part.lower() for part in parts if part
    )
    if not alternatives:
        raise ConfigError(
            f"data.fields.{name} is empty; write an extension ('jpg;png') or 'json.caption'"
        )
    return alternatives


def _carried(name: str, samples: Sequence[Sample], extension: str) -> bool:
    """Whether a modality lies in the first of the members of another one."""
    modality = registry.create(name)
    members = (_member(sample, extension) for sample in samples)
    there = (member for member in members if member is not None)
    return any(modality.carried(member) for member in islice(there, _LOOKED_INTO))


def _member(sample: Sample, extension: str) -> bytes | None:
    try:
        return sample.member(extension)
    except SampleError:
        return None


def _in_json(sample: Sample, path: str) -> bool:
    try:
        return sample.field(path) is not None
    except SampleError:
        return False
