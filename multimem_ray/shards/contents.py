"""What a sample carries in each modality, for planting: where it lies, its bytes, its label."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multimem_ray.errors import SampleError
from multimem_ray.modalities import registry
from multimem_ray.sample import Sample

Alternatives = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Value:
    """Content of one modality.

    Attributes:
        field: Where it lies: an extension, or a path such as ``json.caption``.
        content: Bytes of the member, or the JSON value; never empty.
    """

    field: str
    content: Any

    @property
    def in_json(self) -> bool:
        """Whether it lies in the ``.json`` member."""
        return self.field.startswith("json.")


@dataclass(frozen=True, slots=True)
class Item:
    """A sample with its modalities; those that are absent or empty are left out."""

    sample: Sample
    label: str | None
    values: Mapping[str, Value]


def look(sample: Sample, alternatives: Alternatives, label: str | None) -> Item:
    """What the sample carries; nothing if its JSON is needed and unreadable.

    Args:
        sample: The sample.
        alternatives: Modality to its fields, the first present one counts.
        label: Field with the label.
    """
    values: dict[str, Value] = {}
    try:
        for name, fields in alternatives.items():
            found = (Value(field, sample.field(field)) for field in fields)
            value = next((v for v in found if v.content is not None), None)
            if value is not None and value.content not in (b"", "", []):
                values[name] = value
        return Item(sample, label_of(sample, label), _own(values))
    except SampleError:
        return Item(sample, None, {})


def _own(values: Mapping[str, Value]) -> dict[str, Value]:
    """Without what lies in another modality's member: a video is exchanged with its sound."""
    lying = Counter(value.field for value in values.values())
    return {
        name: value
        for name, value in values.items()
        if lying[value.field] == 1 or value.field not in registry.get(name).carriers
    }


def label_of(sample: Sample, field: str | None) -> str | None:
    """The label as text; ``None`` if there is none."""
    value = None if field is None else sample.field(field)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace").strip()
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def replaced(sample: Sample, own: Value, donated: Value, fields: Sequence[str]) -> dict[str, bytes]:
    """The sample's members with one modality from a donor.

    A member takes the place of every alternative member of the modality, under the donor's
    extension; a JSON value goes to the very field that it replaces. Nothing else changes.
    """
    members = dict(sample.members)
    if own.in_json:
        *parents, last = own.field.split(".")[1:]
        metadata = place = copy.deepcopy(sample.metadata())
        for part in parents:
            place = place[part]
        place[last] = donated.content
        members.pop("json.gz", None)
        members["json"] = json.dumps(metadata, ensure_ascii=False).encode()
        return members
    for field in fields:
        if not field.startswith("json."):
            members.pop(field, None)
            members.pop(f"{field}.gz", None)
    members[donated.field] = donated.content
    return members
