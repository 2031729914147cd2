"""How far a run is, told by its files alone; also for a run on another machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from multimem_ray.own_files import HELD_OUT_AGAIN, read_own
from multimem_ray.run import Run
from multimem_ray.storage import Storage
from multimem_ray.store.markers import details, valid_commits

_RECENT = 32


@dataclass(frozen=True)
class RunStatus:
    """State of a run; times in seconds.

    ``undecodable`` and ``killed`` are held-out samples that were left out of the means.
    """

    models: int
    models_done: int
    shards: int
    shards_done: int
    missing: int
    rows: int
    held_out: int
    errors: int
    shards_per_s: float | None
    undecodable: int = 0
    killed: int = 0

    @property
    def left_s(self) -> float | None:
        """Estimated time left, from the most recent commits."""
        if not self.shards_per_s:
            return None
        return (self.shards - self.shards_done) / self.shards_per_s

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each fact, for a person."""
        found = [
            ("reference models", f"{self.models_done} of {self.models} trained"),
            (
                "shards",
                f"{self.shards_done} of {self.shards} committed"
                + (f", {self.missing} missing" if self.missing else ""),
            ),
            ("samples", f"{self.rows} scored, {self.held_out} held out"),
            ("errors", str(self.errors)),
        ]
        if self.undecodable or self.killed:
            told = f"{self.undecodable} could not be used, {self.killed} killed their process"
            found.append(("left out of the held-out set", told))
        if self.shards_done < self.shards and self.left_s is not None:
            rate = f"{self.shards_per_s:.2f} shards/s, about {self.left_s:.0f} s left"
            found.append(("rate", rate))
        return found


def run_status(output: str, run_json: Mapping[str, Any], storage: Storage) -> RunStatus:
    """Status of the run in ``output``: one listing, and the last few markers for the rate."""
    run = Run.from_json({**run_json, "config": {**run_json["config"], "output": output}})
    commits = valid_commits(storage, output, run_json["fingerprint"])
    ids = run.design.model_ids()
    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(run.is_trained, ids))
        recent = sorted(
            float(d["finished_at"])
            for d in pool.map(
                lambda c: details(storage, c, finished_at=(int, float)), commits[-_RECENT:]
            )
        )
    held_out = _held_out(output, run_json, storage)
    return RunStatus(
        models=len(ids),
        models_done=done,
        shards=int(run_json["shards"]),
        shards_done=len(commits),
        missing=len(run_json["missing"]),
        rows=sum(c.rows for c in commits),
        held_out=sum(c.held_out for c in commits),
        errors=sum(c.errors for c in commits),
        shards_per_s=_rate(recent),
        undecodable=int(held_out.get("undecodable", 0)),
        killed=len(held_out.get("killed", [])),
    )


def _held_out(output: str, run_json: Mapping[str, Any], storage: Storage) -> dict[str, Any]:
    """What is told of the held-out set; {} before it is embedded."""
    url = storage.join(output, "held_out", "held_out.json")
    known = read_own(storage, url, HELD_OUT_AGAIN) if storage.exists(url) else {}
    return known if known.get("fingerprint") == run_json["fingerprint"] else {}


def _rate(times: list[float]) -> float | None:
    """Commits per second over a span of recent ones; None when it cannot be told."""
    if len(times) < 2:
        return None
    span = max(times[-1], time.time()) - times[0] if time.time() - times[-1] < 600 else 0.0
    return len(times) / span if span > 0 else None
