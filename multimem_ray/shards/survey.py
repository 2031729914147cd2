"""What is in some shards, before any configuration: counted, in a fixed amount of memory.

A shard is read as a stream and becomes a :class:`Survey`; surveys add up, whoever made them, so
that many shards are looked through on a cluster and few in this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from multimem_ray.errors import SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.described import Facts, described
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

_EXAMPLES = 3
_MOST_NAMED = 200  # kinds of members that are told apart
OTHER = "(others)"


@dataclass
class Survey:
    """Counts over shards.

    Attributes:
        shards: Number of shards.
        samples: Samples that can be read.
        members: Extension to number of members, their bytes, the least and most of one.
        modalities: Modality to number of samples that have a member or JSON field of it.
        together: Modalities that stand in one sample, joined by ``+``, to number of samples.
        failures: Kind of failure to number, and examples.
        unsorted: Shards in which keys do not ascend.
        facts: What the heads of members say, by modality: each fact to its values and how often
            they are met.
        ranges: Of facts that are numbers, by modality: the least and most.
        cut: Shards of which only the first samples were looked at.
    """

    shards: int = 0
    samples: int = 0
    members: dict[str, list[int]] = field(default_factory=dict)
    modalities: Counter[str] = field(default_factory=Counter)
    together: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    unsorted: int = 0
    facts: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    ranges: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    cut: int = 0

    def add(self, other: Survey) -> None:
        """Count what another one counted."""
        self.shards += other.shards
        self.samples += other.samples
        self.unsorted += other.unsorted
        self.cut += other.cut
        self.modalities += other.modalities
        self.together += other.together
        for name, (count, size, least, most) in other.members.items():
            self._member(name, count, size, least, most)
        for kind, (count, examples) in other.failures.items():
            known, before = self.failures.get(kind, (0, []))
            self.failures[kind] = known + count, [*before, *examples][:_EXAMPLES]
        for name, facts in other.facts.items():
            for fact, values in facts.items():
                self.facts.setdefault(name, {}).setdefault(fact, Counter()).update(values)
        for name, ranges in other.ranges.items():
            for fact, ends in ranges.items():
                for value in ends:
                    self._number(name, fact, value)

    def sample(
        self, sample: Sample, extensions: Mapping[str, str], paths: Mapping[str, Sequence[str]]
    ) -> None:
        """Count a sample.

        Args:
            extensions: Of members, to their modality.
            paths: Modality to the JSON fields in which it may lie.
        """
        self.samples += 1
        for name, data in sample.members.items():
            self._member(name, 1, len(data), len(data), len(data))
        here = {extensions[name] for name in sample.extensions if name in extensions}
        here |= {name for name, of in paths.items() if name not in here and _in_json(sample, of)}
        self.modalities.update(here)
        self.together["+".join(sorted(here)) or "none"] += 1

    def fail(self, kind: str, example: str) -> None:
        """Count what could not be read."""
        count, examples = self.failures.get(kind, (0, []))
        self.failures[kind] = count + 1, [*examples, example][:_EXAMPLES]

    def describe(self, modality: str, facts: Facts) -> None:
        """Count what a member's head says."""
        for fact, value in facts.items():
            if isinstance(value, str):
                known = self.facts.setdefault(modality, {}).setdefault(fact, Counter())
                known[value if value in known or len(known) < _MOST_NAMED else OTHER] += 1
            else:
                self._number(modality, fact, value)

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain JSON; the most frequent first."""
        names = {e for name in registry.names() for e in registry.get(name).extensions}
        largest = sorted(self.members.items(), key=lambda item: (-item[1][0], item[0]))
        return {
            "shards": self.shards,
            "looked_at_in_part": self.cut,
            "unsorted_shards": self.unsorted,
            "samples": self.samples,
            "members": {
                name: {
                    "count": count,
                    "bytes": size,
                    "smallest": least,
                    "largest": most,
                    "known": name.removesuffix(".gz") in names | {"json"},
                }
                for name, (count, size, least, most) in largest
            },
            "modalities": dict(self.modalities.most_common()),
            "together": dict(self.together.most_common()),
            "contents": {
                name: {
                    **{fact: dict(v.most_common()) for fact, v in self.facts.get(name, {}).items()},
                    **{fact: list(v) for fact, v in self.ranges.get(name, {}).items()},
                }
                for name in sorted(self.facts.keys() | self.ranges.keys())
            },
            "failures": {
                kind: {"count": count, "examples": examples}
                for kind, (count, examples) in sorted(self.failures.items())
            },
        }

    def _number(self, modality: str, fact: str, value: float) -> None:
        ranges = self.ranges.setdefault(modality, {})
        least, most = ranges.get(fact, (value, value))
        ranges[fact] = (min(least, value), max(most, value))

    def _member(self, name: str, count: int, size: int, least: int, most: int) -> None:
        if name not in self.members and len(self.members) >= _MOST_NAMED:
            name = OTHER
        known = self.members.get(name)
        if known is None:
            self.members[name] = [count, size, least, most]
        else:
            known[0] += count
            known[1] += size
            known[2], known[3] = min(known[2], least), max(known[3], most)


def survey(url: str, storage: Storage, most: int | None = None) -> Survey:
    """What is in a shard.

    Args:
        most: Only so many samples are looked at; None = all.
    """
    counts, last = Survey(shards=1), ""
    kinds = {name: registry.get(name) for name in registry.names()}
    extensions = {e: name for name, kind in kinds.items() for e in kind.extensions}
    paths = {name: [f"json.{f}" for f in kind.json_fields] for name, kind in kinds.items()}
    items = read_shard(url, storage)
    for item in islice(items, most):
        if not isinstance(item, Sample):
            counts.fail(item.error, f"{item.shard}  {item.key or '(shard)'}: {item.detail}")
            continue
        counts.sample(item, extensions, paths)
        if item.key < last and not counts.unsorted:
            counts.unsorted = 1
        last = item.key
        for extension in item.extensions:
            if extension in extensions:
                _describe(counts, extensions[extension], extension, item)
    counts.cut = int(most is not None and next(items, None) is not None)
    return counts


def _describe(counts: Survey, name: str, extension: str, sample: Sample) -> None:
    """Count what a member's head says, or that it says nothing."""
    try:
        counts.describe(name, described(name, sample.member(extension) or b""))
    except SampleError as error:
        counts.fail(f"{name}: {error.kind}", f"{sample.shard}  {sample.key}: {error.reason}")


def _in_json(sample: Sample, paths: Sequence[str]) -> bool:
    try:
        return any(sample.field(path) for path in paths)
    except SampleError:
        return False
