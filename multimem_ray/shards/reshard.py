"""Rewrites shards without the samples of a list, or with them alone.

    <out>/<shard>.tar             what is left of a shard, in its order; none if nothing is
    <out>/reshard/<shard>.json    its counts; written last, so a run that is repeated goes on
    <out>/reshard.json            the sums over all shards

One shard in, one shard out: nothing is shuffled or merged, so several machines may each rewrite
some of the shards into the same folder. A shard that changed since, or another list, is rewritten.
What cannot be read is left out, counted and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from multimem_ray.design.key_list import KeyList, read_keys
from multimem_ray.design.shard_names import located, parts_needed
from multimem_ray.errors import ConfigError, ShardError, StorageError
from multimem_ray.own_files import read_own
from multimem_ray.sample import Sample
from multimem_ray.shards.copies import copies
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.met import require_met
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import FileInfo, Storage

SUMMARY = "reshard.json"


@dataclass
class ReshardReport:
    """What was written.

    Attributes:
        out: The folder.
        shards: URLs of the shards written, now or before.
        missing: Shards that were named and are not there.
        samples: Readable samples in the given shards.
        written: Those that were written.
        left_out: Those that were left out because of the list.
        listed: Samples in the list.
        failures: What could not be read, as text.
        skipped: Shards that had been rewritten before.
        few: What to say where few of the list stand in the shards; else empty.
    """

    out: str
    listed: int
    keep: bool
    shards: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    samples: int = 0
    written: int = 0
    left_out: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: int = 0
    few: str = ""

    @property
    def found(self) -> int:
        """Samples of the list that stand in the shards."""
        return self.written if self.keep else self.left_out

    @property
    def agrees(self) -> bool:
        """Whether every sample read is written or left out, and none is found twice."""
        once = self.found <= self.listed
        return once and self.samples == self.written + self.left_out

    def lines(self) -> list[str]:
        """The report for a person."""
        made = f"{self.written} of {self.samples} samples written to {len(self.shards)} shards"
        lines = [f"{made} in {self.out}; {self.left_out} left out"]
        if self.skipped:
            lines.append(f"{self.skipped} shards had been rewritten before")
        if self.found > self.listed:
            lines.append(
                f"{self.found} samples have the {self.listed} keys of the list: it needs a column "
                "'shard' that says which are meant"
            )
        elif self.found < self.listed:
            lines.append(f"{self.found} samples of the list's {self.listed} stand in these shards")
        if self.few:
            lines.append(f"warning: {self.few}")
        lines += [f"not copied: {failure}" for failure in self.failures[:20]]
        if len(self.failures) > 20:
            lines.append(f"… {len(self.failures)} failures in all; see {self.out}/{SUMMARY}")
        return lines + [f"missing: {url}" for url in self.missing]


def reshard(
    spec: str | Sequence[str],
    out: str,
    listed: KeyList | str,
    *,
    keep: bool = False,
    storage: Storage | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> ReshardReport:
    """Rewrite shards.

    Args:
        spec: Shards, as ``data.shards``.
        out: Folder or ``s3://`` prefix of what is written.
        listed: The samples that are left out, or where the list of them is; with ``keep``, those
            that are kept.
        keep: Keep what is listed, and nothing else.
        storage: Where everything lies.
        advance: Called after each shard with shards done and shards in all.

    Raises:
        ConfigError: ``out`` is where the shards are; none of the list stands in them, or it does
            not tell which of several shards of one file name it means.
        ShardError: Shards that are not found.
        StorageError: Something cannot be written.
    """
    storage = storage or Storage()
    found = find_shards(spec, storage)
    urls = copies(found.shards, out, storage)
    where = listed if isinstance(listed, str) else None
    listed, few = _settled(listed, found.shards, storage)
    report = ReshardReport(out, len(listed), keep, missing=found.missing, few=few)
    origin = {"digest": listed.digest(), "from": where}
    task = f"{listed.digest()}-{'keep' if keep else 'remove'}"
    for number, (shard, url) in enumerate(zip(found.shards, urls, strict=True), 1):
        marker = storage.join(out, "reshard", f"{url.removeprefix(storage.join(out, ''))}.json")
        counts = _done(marker, shard, url, task, storage)
        if counts is None:
            counts = _rewrite(shard, url, listed, keep, storage)
            about = {"source": shard.url, "version": shard.version, "task": task}
            text = json.dumps(about | counts, indent=1).encode()
            storage.write_atomic(marker, text)
        else:
            report.skipped += 1
        _count(report, counts, url)
        if advance is not None:
            advance(number, len(urls))
    content = {
        "list": {"samples": report.listed, "found": report.found, "keep": keep, **origin},
        **{name: getattr(report, name) for name in ("samples", "written", "left_out", "agrees")},
        **{name: getattr(report, name) for name in ("shards", "missing", "failures")},
    }
    storage.write_atomic(storage.join(out, SUMMARY), json.dumps(content, indent=1).encode())
    return report


def _settled(
    listed: KeyList | str, shards: Sequence[FileInfo], storage: Storage
) -> tuple[KeyList, str]:
    """The list, read if it is not, that has something in common with the shards.

    And what to say where that is little.
    """
    where = listed if isinstance(listed, str) else "the list"
    parts = parts_needed(located(shard.url) for shard in shards)
    if isinstance(listed, str):
        listed = read_keys(listed, storage, parts=parts)
    elif listed.by_shard and listed.parts < parts:
        raise ConfigError(
            f"{where} knows shards by {listed.parts} parts of their paths, and it takes {parts} to "
            "tell these shards apart; read it with as many"
        )
    return listed, require_met(listed, shards, storage, where) or ""


def _done(
    marker: str, shard: FileInfo, url: str, task: str, storage: Storage
) -> dict[str, Any] | None:
    """The counts of a shard that was rewritten before, from the same content and list."""
    if not storage.exists(marker):
        return None
    try:
        counts = read_own(storage, marker, "it is rewritten")
        same = (counts["version"], counts["task"]) == (shard.version, task)
        whole = not counts["written"] or storage.info(url).size == counts["size"]
    except (ValueError, KeyError, TypeError, StorageError):
        return None
    return counts if same and whole else None


def _rewrite(
    shard: FileInfo, url: str, listed: KeyList, keep: bool, storage: Storage
) -> dict[str, Any]:
    counts: dict[str, Any] = {"samples": 0, "written": 0, "left_out": 0, "failures": []}
    kept = _kept(shard, listed, keep, storage, counts)
    first = next(kept, None)
    # A shard that held more before, under another list, must not stay.
    storage.remove(url)
    if first is None:
        return counts
    with create_shard(url, storage) as made:
        for sample in _and_then(first, kept):
            made.write(sample.key, sample.members)
            counts["written"] += 1
    back = sum(isinstance(item, Sample) for item in read_shard(url, storage))
    if back != counts["written"]:
        raise ShardError(f"{back} of {counts['written']} samples can be read back", url)
    return counts | {"size": storage.info(url).size}


def _kept(
    shard: FileInfo, listed: KeyList, keep: bool, storage: Storage, counts: dict[str, Any]
) -> Iterator[Sample]:
    name = located(shard.url)
    for item in read_shard(shard.url, storage):
        if not isinstance(item, Sample):
            where = item.key or "(shard)"
            counts["failures"].append(f"{item.shard}  {where}  {item.error}: {item.detail}")
            continue
        counts["samples"] += 1
        if bool(listed.contains([item.key], name)[0]) == keep:
            yield item
        else:
            counts["left_out"] += 1


def _and_then(first: Sample, others: Iterator[Sample]) -> Iterator[Sample]:
    yield first
    yield from others


def _count(report: ReshardReport, counts: dict[str, Any], url: str) -> None:
    report.samples += counts["samples"]
    report.written += counts["written"]
    report.left_out += counts["left_out"]
    report.failures += counts["failures"]
    if counts["written"]:
        report.shards.append(url)
