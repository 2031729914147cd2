"""What ``multimem mitigate`` does: a mitigated audit, and how it compares with its references."""

from __future__ import annotations

import json
from typing import Any

from multimem_ray.audit import audit
from multimem_ray.config import Config
from multimem_ray.errors import ConfigError
from multimem_ray.evaluation.evaluate import evaluate
from multimem_ray.evaluation.mitigation import compare_memory, overhead, utility
from multimem_ray.evaluation.mitigation_page import Table, write_page
from multimem_ray.progress import Progress
from multimem_ray.run import Run, load_run
from multimem_ray.setup import open_run

_NAMES = {"all": "all samples", "untouched": "trained on as before", "chosen": "chosen"}


def mitigate(config: Config, progress: Progress) -> dict[str, Any]:
    """Train by the mitigated recipe, score with matched references, evaluate, compare.

    Everything that is done already is skipped, so running it again resumes it.

    Returns:
        ``memory``, ``utility`` (before and after), ``overhead`` and the ``recipe``; written to
        ``mitigation.json``, and for people to ``mitigation.html``.

    Raises:
        ConfigError: No mitigation is configured.
        MultiMemError: See the stages.
    """
    if config.mitigation.kind == "none":
        raise ConfigError(
            "mitigation.kind is none: set it to in_training or post_training, and "
            "mitigation.references to the output of a finished audit"
        )
    audit(config, progress)
    run, _ = open_run(config)
    references = str(run.config.mitigation.references)
    result = compared(run, references, progress)
    run.storage.write_atomic(run.path("mitigation.json"), json.dumps(result, indent=1).encode())
    tables = [memory_table(result["memory"]), utility_table(result["utility"])]
    url = write_page(run.path("mitigation.html"), run.storage, "Mitigation", tables)
    progress.say(f"side by side: {url}")
    return result


def compared(run: Run, references: str, progress: Progress) -> dict[str, Any]:
    """A finished mitigated run beside its references; evaluates what is not evaluated yet."""
    before = Run.from_json(load_run(references, run.storage))
    return {
        "recipe": run.config.mitigation.model_dump(mode="json"),
        "memory": compare_memory(run, references),
        "utility": {
            "before": utility(evaluated(before, progress)),
            "after": utility(evaluated(run, progress)),
        },
        "overhead": overhead(run),
    }


def evaluated(run: Run, progress: Progress) -> dict[str, Any]:
    """The evaluation of a run: as it was written, or made now."""
    url = run.path("evaluation.json")
    if run.storage.exists(url):
        found: dict[str, Any] = json.loads(run.storage.read_bytes(url))
        return found
    return evaluate(run, progress)


def memory_table(memory: dict[str, Any]) -> Table:
    """Mean MultiMem before and after."""
    rows = []
    for name, old in memory["before"].items():
        new = memory["after"][name]
        if old is not None and new is not None:
            # A relative change of what is not above 0 says nothing.
            change = 100 * (new / old - 1) if old > 0 else None
            rows.append([_NAMES.get(name, name), memory["count"][name], old, new, change])
    note = (
        f"Matched references: all models were trained by the recipe. Against models without it, "
        f"the mean would be {memory['unmatched']:.3f}, and {memory['corrected']:.3f} less the gap "
        f"of {memory['gap']:.3f} on samples that no model saw."
    )
    return Table("Mean MultiMem", ["samples", "count", "before", "after", "change, %"], rows, note)


def utility_table(found: dict[str, Any]) -> Table:
    """Held-out figures before and after, in points of 100."""
    rows = [
        [task, 100 * old, 100 * found["after"][task], 100 * (found["after"][task] - old)]
        for task, old in found["before"].items()
        if task in found["after"]
    ]
    note = "Means over directions or modalities, and over models; on held-out samples."
    return Table("Utility", ["task", "before", "after", "points"], rows, note)
