"""Trials: conditions × seeds on data that train in seconds, and what of it is more than chance.

Each trial is a whole audit in a folder of its own, in this process; one that is done is not done
again. The first condition
is the baseline: of each seed, it is what the others are compared with, and what judges the samples
for their mitigation. A seed settles who trains on what, who is held out, and how weights start, so
conditions of one seed differ by their recipe alone and are compared in pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from multimem_ray.audit import score, train
from multimem_ray.config import Config
from multimem_ray.evaluation.mitigation import compare_memory, evaluated, overhead, utility
from multimem_ray.progress import Progress
from multimem_ray.report.tables import Table
from multimem_ray.run import Run
from multimem_ray.setup import apply_overrides, open_run, resolve

Record = dict[str, Any]
_POINTS = {"R@5": "R@5", "zero_shot": "zero-shot", "probe": "probe"}


@dataclass(frozen=True)
class Condition:
    """A recipe.

    Args:
        name: Also its folder.
        sets: Overrides ``a.b=c`` of the configuration.
        about: What it is, for a table.
    """

    name: str
    sets: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Paired:
    """Difference of two conditions over the seeds that both have.

    Attributes:
        mean: Mean difference, first minus second.
        se: Its standard error; NaN for a single seed.
        p: Two-sided p-value of Student's paired t-test; NaN for a single seed.
        seeds: How many.
    """

    mean: float
    se: float
    p: float
    seeds: int


def run_trials(
    base: Mapping[str, Any],
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    folder: Path,
    progress: Progress,
    threads: int = 2,
) -> list[Record]:
    """Run what is not done yet.

    Args:
        base: The configuration as a mapping, without ``output``.
        conditions: The baseline first.
        seeds: Of design and training.
        folder: Receives ``seed-<n>/<condition>/``.
        progress: What is told meanwhile.
        threads: Models that step at the same time.

    Returns:
        A record per seed and condition: ``seed``, ``condition``, ``memory`` (against the
        baseline), ``utility``, ``overhead``.

    Raises:
        MultiMemError: A trial failed; what is done stays.
    """
    records = []
    quiet = _quiet()
    with progress.task("trials", len(seeds) * len(conditions), unit="trainings") as shown:
        for seed in seeds:
            baseline = folder / f"seed-{seed}" / conditions[0].name
            for condition in conditions:
                place = folder / f"seed-{seed}" / condition.name
                records.append(_trial(base, condition, seed, place, baseline, quiet, threads))
                shown.update(len(records))
    return records


def audit_here(config: Config, progress: Progress) -> Run:
    """Train, score, summarize and evaluate what is not done yet, in this process.

    Returns:
        The run; its folder holds scores, ``summary.json`` and ``evaluation.json``.

    Raises:
        MultiMemError: See the stages.
    """
    train(config, progress, executor="local")
    score(config, progress, executor="local")
    run, _ = open_run(config)
    evaluated(run, progress)
    return run


def values(records: Sequence[Record], condition: str, metric: str) -> dict[int, float]:
    """Seed → a figure of a condition; ``metric`` is a path, such as ``memory/matched``."""
    found = {}
    for record in records:
        if record["condition"] == condition:
            value: Any = record
            for part in metric.split("/"):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                found[record["seed"]] = float(value)
    return found


def mean_se(found: Mapping[int, float]) -> tuple[float, float]:
    """Mean over seeds, and its standard error; NaN where there are too few."""
    numbers = list(found.values())
    if not numbers:
        return math.nan, math.nan
    se = float(np.std(numbers, ddof=1) / len(numbers) ** 0.5) if len(numbers) > 1 else math.nan
    return float(np.mean(numbers)), se


def paired(records: Sequence[Record], first: str, second: str, metric: str) -> Paired:
    """Compare two conditions seed by seed.

    Raises:
        ValueError: They have no seed in common.
    """
    a, b = values(records, first, metric), values(records, second, metric)
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError(f"{first} and {second} have no seed in common with {metric}")
    x, y = np.array([a[s] for s in seeds]), np.array([b[s] for s in seeds])
    mean, se = mean_se(dict(enumerate(x - y)))
    p = float(stats.ttest_rel(x, y).pvalue) if len(seeds) > 1 and np.ptp(x - y) > 0 else math.nan
    return Paired(mean, se, p, len(seeds))


def trial_table(
    records: Sequence[Record],
    conditions: Sequence[Condition],
    title: str,
    note: str | Sequence[str] = "",
) -> Table:
    """Memorization and utility of every condition: means over seeds ± standard errors.

    Changes are against the baseline, seed by seed; ``untouched`` is over the samples that a
    condition trains on as the baseline does, against the same samples there.
    """
    baseline = conditions[0].name
    tasks = [t for t in _POINTS if values(records, baseline, f"utility/{t}")]
    columns = ["condition", "MultiMem", "change, %", "untouched, %", "unmatched", "corrected"]
    columns += [f"{_POINTS[task]}, points" for task in tasks]
    rows = []
    for condition in conditions:
        name = condition.name
        mean, se = mean_se(values(records, name, "memory/matched"))
        row: list[Any] = [condition.about or name, _with_se(mean, se)]
        row.append(_with_se(*_percent(values(records, name, "memory/change"))))
        row.append(_with_se(*_percent(_untouched(records, name))))
        row += [
            _number(mean_se(values(records, name, f"memory/{kind}"))[0])
            for kind in ("unmatched", "corrected")
        ]
        for task in tasks:
            if name == baseline:
                level, level_se = mean_se(values(records, name, f"utility/{task}"))
                row.append(f"({_with_se(100 * level, 100 * level_se, digits=1)})")
            else:
                gain = paired(records, name, baseline, f"utility/{task}")
                row.append(_with_se(100 * gain.mean, 100 * gain.se, digits=1))
        rows.append(row)
    return Table(title, columns, rows, note)


def control_table(
    records: Sequence[Record], targeted: str, controls: Sequence[str], title: str
) -> Table:
    """A targeted condition against each of its controls, paired over seeds."""
    metrics = {
        "MultiMem": "memory/matched",
        **{name: f"utility/{task}" for task, name in _POINTS.items()},
    }
    rows = []
    for control in controls:
        for name, metric in metrics.items():
            if not values(records, targeted, metric):
                continue
            found = paired(records, targeted, control, metric)
            rows.append([control, name, found.mean, found.se, found.p, found.seeds])
    columns = ["against", "figure", "difference", "se", "p (paired t)", "seeds"]
    clean = [[None if _is_nan(cell) else cell for cell in row] for row in rows]
    return Table(title, columns, clean, f"{targeted} minus the control, over equal seeds.")


def _trial(
    base: Mapping[str, Any],
    condition: Condition,
    seed: int,
    place: Path,
    baseline: Path,
    quiet: Progress,
    threads: int,
) -> Record:
    url = place / "trial.json"
    if url.exists():
        record: Record = json.loads(url.read_text())
        return record
    cpus = f"resources.train.cpus={threads}"
    sets = [
        f"output={place}",
        cpus,
        f"design.seed={seed}",
        f"training.seed={seed}",
        *condition.sets,
    ]
    if any(item.startswith("mitigation.kind=") for item in condition.sets):
        sets += [f"mitigation.references={baseline}", f"mitigation.seed={seed}"]
    run = audit_here(resolve(apply_overrides(base, sets)), quiet)
    record = {
        "seed": seed,
        "condition": condition.name,
        "sets": list(condition.sets),
        "memory": compare_memory(run, str(baseline)),
        "utility": utility(evaluated(run, quiet)),
        "overhead": overhead(run),
    }
    url.write_text(json.dumps(record, indent=1))
    return record


def _untouched(records: Sequence[Record], name: str) -> dict[int, float]:
    after = values(records, name, "memory/after/untouched")
    before = values(records, name, "memory/before/untouched")
    return {seed: after[seed] / before[seed] - 1 for seed in after.keys() & before.keys()}


def _percent(found: Mapping[int, float]) -> tuple[float, float]:
    mean, se = mean_se(found)
    return 100 * mean, 100 * se


def _with_se(mean: float, se: float, digits: int = 3) -> str | None:
    if math.isnan(mean):
        return None
    digits = 1 if abs(mean) >= 10 else digits
    spread = "" if math.isnan(se) else f" ± {se:.{digits}f}"
    return f"{mean:.{digits}f}{spread}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _is_nan(cell: Any) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def _quiet() -> Progress:
    from rich.console import Console

    return Progress(Console(quiet=True))
