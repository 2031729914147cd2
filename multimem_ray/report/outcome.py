"""What the models of a run can do, and what a mitigation brought, with intervals.

Every figure of utility is a share of held-out samples, averaged over directions or modalities and
over models. Its interval is Wilson's for one share of that many samples: the averages are of the
same samples, so it is rather too wide. A difference has Newcombe's hybrid interval (1998, method
10) of two such shares, which leaves out that both are of the same samples: too wide as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from multimem_ray.report.text import number
from multimem_ray.results.statistics import wilson_ends

Interval = dict[str, float]


def share_interval(share: float, samples: int) -> Interval:
    """``low`` and ``high`` of a share of so many samples."""
    low, high = wilson_ends(np.array([share]), np.array([float(samples)]))
    return {"low": float(low[0]), "high": float(high[0])}


def difference_interval(before: float, after: float, samples: int) -> Interval:
    """``low`` and ``high`` of after - before, both shares of so many samples."""
    old, new, change = (
        share_interval(before, samples),
        share_interval(after, samples),
        after - before,
    )
    return {
        "low": change - math.hypot(after - new["low"], old["high"] - before),
        "high": change + math.hypot(new["high"] - after, before - old["low"]),
    }


def evaluation_rows(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The means of an ``evaluation.json``: ``task``, ``of``, ``value``, ``low``, ``high``,
    ``chance`` and ``samples``; empty without one.
    """
    facts = _facts(evaluation)
    rows = []
    for mean in evaluation.get("mean") or ():
        samples, chance = facts[mean["task"], mean["of"]]
        row = {"task": mean["task"], "of": mean["of"], "value": mean["mean"]}
        ends = share_interval(mean["mean"], samples)
        rows.append(row | ends | {"chance": chance, "samples": samples})
    return rows


def utility_intervals(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Of two evaluations, for each task in both: ``samples``, and the intervals of ``before``,
    ``after`` and their ``difference``.

    Samples are those of the direction or modality that has the fewest.
    """
    old, new = _by_task(before), _by_task(after)
    found = {}
    for task in [task for task in old if task in new]:
        samples = min(old[task][1], new[task][1])
        a, b = old[task][0], new[task][0]
        found[task] = {
            "samples": samples,
            "before": share_interval(a, samples),
            "after": share_interval(b, samples),
            "difference": difference_interval(a, b, samples),
        }
    return found


def mitigation_verdict(result: Mapping[str, Any]) -> str:
    """One sentence on a ``mitigation.json``: memorization, and what it cost; empty without one."""
    if not result:
        return ""
    memory, utility = result["memory"], result["utility"]
    old, new = memory["before"]["all"], memory["after"]["all"]
    change = (memory.get("intervals") or {}).get("difference", {}).get("all")
    said = f"Mean MultiMem went from {number(old)} to {number(new)}"
    if change is None:
        said += ", by how much beyond chance is not known"
    else:
        ends = f"{number(change['low'])} to {number(change['high'])}"
        said += f", a change of {number(new - old)} (95 % interval {ends}): "
        said += _direction(change, "less is memorized", "more is memorized", "no clear change")
    return f"{said}{_cost(utility, result.get('utility_intervals') or {})}."


def _cost(utility: Mapping[str, Any], intervals: Mapping[str, Any]) -> str:
    task = next((t for t in utility["before"] if t in utility["after"]), None)
    if task is None:
        return ""
    points = 100 * (utility["after"][task] - utility["before"][task])
    said = f"; {task.replace('_', ' ')} on held-out samples changed by {number(points, 1)} points"
    if task not in intervals:
        return said
    ends = {end: 100 * value for end, value in intervals[task]["difference"].items()}
    told = f"{said} ({number(ends['low'], 1)} to {number(ends['high'], 1)})"
    return f"{told}, {_direction(ends, 'a loss', 'a gain', 'not distinguishable from none')}"


def _direction(ends: Mapping[str, float], less: str, more: str, neither: str) -> str:
    if ends["high"] < 0:
        return less
    return more if ends["low"] > 0 else neither


def _by_task(evaluation: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
    """Mean over directions or modalities of each task, and the fewest samples of one."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in evaluation_rows(evaluation):
        rows[row["task"]].append(row)
    return {
        task: (float(np.mean([r["value"] for r in of])), min(r["samples"] for r in of))
        for task, of in rows.items()
    }


def _facts(evaluation: Mapping[str, Any]) -> dict[tuple[str, str], tuple[int, float]]:
    """Samples and chance by task and direction or modality; over models the fewest, the most."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for model in (evaluation.get("models") or {}).values():
        for row in model["retrieval"]:
            direction = f"{'+'.join(row['query'])} → {row['target']}"
            for k in row["recall"]:
                chance = min(1.0, int(k) / row["samples"])
                found[f"R@{k}", direction].append((row["samples"], chance))
        for task in ("probe", "zero_shot"):
            for name, estimate in model[task].items():
                found[task, name].append((estimate["samples"], estimate["chance"]))
    return {
        at: (min(samples for samples, _ in rows), max(chance for _, chance in rows))
        for at, rows in found.items()
    }
