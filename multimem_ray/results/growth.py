"""``design.models: auto``: how many models a run gets, and why no more.

After each scoring the reliability of the ranking is measured, and Spearman and Brown's formula says
how many blocks of models the one that is asked for would take. As many are added, at least one
block and at most as many as there are: each scoring tells more of how the reliability grows, and
all models score all samples again, so that they should not be few. What was measured at each step,
and why it ended, is kept in ``growth.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from multimem_ray.config import DesignConfig
from multimem_ray.results.reliability import reliability_of
from multimem_ray.results.table import ScoreTable
from multimem_ray.verdict.reliability import RankReliability

NAME = "growth.json"
Stop = Literal["reliability", "budget", "bound", "unknown"]


def grow(
    table: ScoreTable, design: DesignConfig, block: int, timings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Decide on more models for a run that is scored, and keep the decision in its folder.

    Args:
        table: The scores.
        design: Its section of the configuration.
        block: Models in a block, of which no part is added.
        timings: What the stages took, as ``timings.json`` has it.

    Returns:
        ``asked`` (reliability), ``budget_hours``, ``max_models``; ``steps``, each with ``models``,
        ``reliability``, ``low``, ``high`` and ``hours`` in all; ``next`` (how many models, None:
        no more) and ``stopped``, why.
    """
    ranked, blocks = reliability_of(table).ranked, design.models // block
    value = None if ranked is None else ranked.at(blocks)
    low, high = (None, None) if ranked is None else ranked.interval(blocks)
    fingerprint = str(table.document("run.json").get("fingerprint"))
    hours = sum(entry["seconds"] for entry in timings) / 3600
    step = {"models": design.models, "reliability": value, "low": low, "high": high, "hours": hours}
    known = table.document(NAME).get("steps", [])
    steps = [one for one in known if one["models"] < design.models]
    most, stopped = _most(design, blocks, block, hours, timings, fingerprint)
    if design.reliability is not None and value is not None and value >= design.reliability:
        following, stopped = blocks, "reliability"
    elif most > blocks and design.reliability is not None and ranked is None:
        following, stopped = blocks, "unknown"
    else:
        following = min(most, _wanted(design, ranked, blocks))
    decision = {
        "asked": design.reliability,
        "budget_hours": design.budget_hours,
        "max_models": design.max_models,
        "steps": [*steps, step],
        "next": following * block if following > blocks else None,
        "stopped": None if following > blocks else stopped,
    }
    url = table.storage.join(table.output, NAME)
    table.storage.write_atomic(url, json.dumps(decision, indent=1).encode())
    return decision


def _wanted(design: DesignConfig, ranked: RankReliability | None, blocks: int) -> int:
    """Blocks that there should be next, if nothing stands in the way."""
    if design.reliability is None or ranked is None:
        return 2 * blocks
    return max(blocks + 1, math.ceil(min(2 * blocks, ranked.blocks_for(design.reliability))))


def _most(
    design: DesignConfig,
    blocks: int,
    block: int,
    hours: float,
    timings: Sequence[Mapping[str, Any]],
    fingerprint: str,
) -> tuple[int, Stop]:
    """Most blocks that bound and budget allow, and which of the two it is."""
    bound = (design.max_models or design.models) // block
    if design.budget_hours is None:
        return bound, "bound"
    trained = [entry for entry in timings if entry["stage"] == "train"]
    scored = [
        entry["seconds"]
        for entry in timings
        if entry["stage"] == "score" and entry["fingerprint"] == fingerprint
    ]
    models = sum(entry["done"] for entry in trained)
    train = sum(entry["seconds"] for entry in trained) / models if models else 0.0
    score = sum(scored) / design.models
    # Whatever is added is trained, and then all models score all samples.
    left = (design.budget_hours - hours) * 3600 - score * design.models
    each = (train + score) * block
    affordable = blocks + (max(0, math.floor(left / each)) if each > 0 else bound)
    return (bound, "bound") if bound <= affordable else (affordable, "budget")


def growth_words(decision: Mapping[str, Any] | None) -> list[str]:
    """What was asked for, what was reached and why it ended, in a sentence; none without growth."""
    if not decision:
        return []
    step, asked = decision["steps"][-1], decision["asked"]
    said = f"design.models: auto: {step['models']} models"
    if step["reliability"] is not None:
        interval = f"{step['low']:.2f} to {step['high']:.2f}"
        said += f", reliability of the ranking {step['reliability']:.2f} ({interval})"
    if asked is not None:
        said += f", asked for {asked:g}"
    if decision["next"]:
        return [f"{said}; goes on with {decision['next']}"]
    hours = f"{step['hours']:.2g} of {decision['budget_hours'] or 0:g} hours are spent"
    why = {
        "reliability": "reached",
        "budget": f"ended by design.budget_hours, for {hours} and more models would take the rest",
        "bound": f"ended by design.max_models = {decision['max_models']}",
        "unknown": "ended: nothing can be told of the ranking of so few samples",
    }
    return [f"{said}: {why[decision['stopped']]}"]
