"""What is in some shards: read here, or on the nodes of a cluster where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from multimem_ray.distributed.choice import make_executor
from multimem_ray.distributed.executor import Executor, Row
from multimem_ray.progress import Progress
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.survey import Survey, survey
from multimem_ray.storage import FileInfo, Storage

FEW_SHARDS = 32
"""So many are read by this process even where there is a cluster."""

_MOST_LINES = 12


@dataclass(frozen=True)
class Look:
    """What was found.

    Attributes:
        survey: Counts over the shards that were read.
        named: Number of shards that there are.
        size: Their bytes.
        missing: Shards that are named and not there.
    """

    survey: Survey
    named: int
    size: int
    missing: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        about = {"named": self.named, "bytes": self.size, "missing": list(self.missing)}
        return about | self.survey.as_json()

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        found = self.survey.as_json()
        yield f"shards      {self.survey.shards} of {self.named} read, {self.size} bytes in all"
        if self.survey.cut:
            yield f"            of {self.survey.cut} only the first samples"
        if self.survey.unsorted:
            yield f"            in {self.survey.unsorted} keys do not ascend"
        yield f"samples     {self.survey.samples}"
        for name, one in list(found["members"].items())[:_MOST_LINES]:
            mean = one["bytes"] // one["count"]
            unknown = "" if one["known"] else ", of no modality"
            yield f"members     .{name}: {one['count']}, {mean} bytes on average{unknown}"
        for together, count in list(found["together"].items())[:_MOST_LINES]:
            yield f"together    {together}: {count}"
        for name, facts in found["contents"].items():
            for fact, values in facts.items():
                yield f"{name:11} {fact}: {_words(values)}"
        for kind, one in found["failures"].items():
            yield f"unreadable  {kind}: {one['count']}, such as {one['examples'][0]}"
        for url in self.missing[:_MOST_LINES]:
            yield f"missing     {url}"


def look_through(
    spec: str,
    storage: Storage,
    progress: Progress,
    *,
    samples: int | None = None,
    shards: int | None = None,
    executor: Executor | None = None,
) -> Look:
    """Read shards and count what is in them; memory does not grow with their number.

    Args:
        spec: As ``data.shards``.
        samples: Only the first samples of each shard.
        shards: Only so many shards, evenly spread.
        executor: Who reads; default: this process, but for many shards the cluster of
            ``RAY_ADDRESS``.

    Raises:
        ShardNotFoundError: No shard at all.
        ClusterError: The cluster that ``RAY_ADDRESS`` names does not answer.
    """
    found = find_shards(spec, storage)
    chosen = _spread(found.shards, shards)
    if executor is None:
        away = len(chosen) > FEW_SHARDS and "RAY_ADDRESS" in os.environ
        executor = make_executor("ray" if away else "local", None)

    def look(row: Row) -> Row:
        return {"survey": survey(row["url"], storage, samples)}

    every = Survey()
    with executor.session(), progress.task("inspect", len(chosen), unit="shards") as shown:
        rows = [{"url": shard.url} for shard in chosen]
        for done, row in enumerate(executor.tasks(look, rows), start=1):
            every.add(row["survey"])
            shown.update(done)
    return Look(every, len(found.shards), sum(shard.size for shard in found.shards), found.missing)


def _spread(shards: Sequence[FileInfo], most: int | None) -> Sequence[FileInfo]:
    if most is None or most >= len(shards):
        return shards
    return [shards[place * len(shards) // most] for place in range(most)]


def _words(values: Any) -> str:
    if isinstance(values, list):
        return f"{values[0]:g} to {values[1]:g}"
    shown = [f"{value} ({count})" for value, count in list(values.items())[:_MOST_LINES]]
    return ", ".join(shown) + (", …" if len(values) > _MOST_LINES else "")
