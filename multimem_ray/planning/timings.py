"""How long the stages of a run really took, and how far the estimate was from that.

``timings.json`` in the output has one entry for each stage of each attempt; a resumed run is the
sum of its attempts. ``plan.json``, if it was saved, is what had been expected.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from multimem_ray.errors import StorageError
from multimem_ray.own_files import damaged, parsed_value
from multimem_ray.run import Run
from multimem_ray.storage import Storage

logger = logging.getLogger(__name__)

_LEFT_OUT = "left out of the comparison"
STAGES = ("train", "score")
OTHER = "other"
"""What an audit takes before and between its stages: finding the shards, starting Ray."""


def record(run: Run, stage: str, seconds: float, done: int, cpus: int, gpus: int) -> None:
    """Add a stage of this attempt.

    Args:
        done: Models trained, or shards scored; a stage that had nothing to do is not recorded.
    """
    if not done:
        return
    url = run.path("timings.json")
    entry = {
        "stage": stage,
        "seconds": round(seconds, 3),
        "done": done,
        "cpus": cpus,
        "gpus": gpus,
        "fingerprint": run.fingerprint,
        "finished_at": time.time(),
    }
    entries = [*recorded(run), entry]
    run.storage.write_atomic(url, json.dumps(entries, indent=1).encode())


def recorded(run: Run) -> list[dict[str, Any]]:
    """What the stages of all attempts took; each with the keys that :func:`record` writes."""
    return list(_read(run.storage, run.path("timings.json"), []))


def save_plan(run: Run, content: dict[str, Any]) -> str:
    """Keep an estimate, to be compared when the run is over."""
    url = run.path("plan.json")
    named = {"fingerprint": run.fingerprint, **content}
    run.storage.write_atomic(url, json.dumps(named, indent=1).encode())
    return url


def compare(output: str, storage: Storage) -> dict[str, Any] | None:
    """What was expected, what it took, and the quotient, per stage and in all; None without both.

    Returns:
        ``estimated_s``, ``actual_s`` and ``ratio`` (actual by estimated) for ``train``, ``score``,
        ``other`` where an audit did both, and ``total``; ``same_cluster`` tells whether the
        estimate was for the cluster it ran on.
    """
    plan = _read(storage, storage.join(output, "plan.json"), {})
    entries = _read(storage, storage.join(output, "timings.json"), [])
    entries = [e for e in entries if e["fingerprint"] == plan.get("fingerprint")]
    expected = plan.get("estimate")
    found = {e["stage"] for e in entries}
    if not expected or not found.issuperset(STAGES):
        return None
    parts = [s for s in (*STAGES, OTHER) if s in found and f"{s}_s" in expected]
    took = {s: sum(e["seconds"] for e in entries if e["stage"] == s) for s in parts}
    known = {s: float(expected[f"{s}_s"]) for s in parts}
    took["total"], known["total"] = sum(took.values()), sum(known.values())
    cluster = (expected["cpus"], expected["gpus"])
    rows: dict[str, Any] = {
        stage: {
            "estimated_s": known[stage],
            "actual_s": took[stage],
            "ratio": took[stage] / known[stage] if known[stage] else None,
        }
        for stage in took
    }
    return rows | {"same_cluster": all((e["cpus"], e["gpus"]) == cluster for e in entries)}


def _read(storage: Storage, url: str, absent: Any) -> Any:
    """What a file holds; ``absent`` where there is none, or a damaged one, which is said."""
    if not storage.exists(url):
        return absent
    data = storage.read_bytes(url)
    try:
        value = parsed_value(data, url, _LEFT_OUT)
        if not isinstance(value, type(absent)):
            raise damaged(url, "of another kind", _LEFT_OUT)
    except StorageError as error:
        # Hours of work must not end over how long they took.
        logger.warning("%s", error)
        return absent
    return value
