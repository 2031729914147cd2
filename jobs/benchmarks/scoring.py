"""Scoring shards, from an opened run to the last commit, beside other ways to do the same.

The sides (:mod:`jobs.benchmarks.scoring_sides`) run in turns, each in a process of its own. Their
rates and CPU times count all of their work, start and end included; steady is the rate in between,
while every worker had a shard. On a busy machine look at the CPU time: it depends less on others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobs.benchmarks import data, runner
from jobs.benchmarks.figures import Figures, alternate
from jobs.benchmarks.runner import option
from jobs.benchmarks.scoring_sides import SIDES
from jobs.benchmarks.watch import LOOKS_PER_MEMORY, Watched, call_watched

RATE, CPU, STEADY = "samples/s", "CPU ms a sample", "steady samples/s"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    shards: tuple[str, ...] = option((), "WebDataset shards; default: the demo's")
    samples: int = option(4000, "shards are repeated up to this", quick=32)
    models: int = option(8, "reference models", quick=2)
    modalities: tuple[str, ...] = option((), "default: all", quick=("image", "text"))
    sides: tuple[str, ...] = option(tuple(SIDES), "which of them", choices=tuple(SIDES))
    workers: int = option(len(os.sched_getaffinity(0)), "processes that score")
    repeats: int = option(3, "turns of each side", quick=1)


def measure(options: Options, folder: Path) -> Figures:
    """Rate, CPU time, start and memory of each side, and their ratios to the others."""
    config = data.make_run(
        folder,
        options.shards,
        samples=options.samples,
        models=options.models,
        modalities=options.modalities,
        workers=options.workers,
    )
    sides = {side: partial(_turn, side, config, options.workers) for side in options.sides}
    figures = alternate(sides, options.repeats)
    for side in options.sides:
        if "bare" in figures.rows:
            figures.ratio(RATE, side, "bare", "rate by bare")
            figures.ratio(CPU, side, "bare", "CPU by bare")
            if STEADY in figures.rows[side] and STEADY in figures.rows["bare"]:
                figures.ratio(STEADY, side, "bare", "steady by bare")
        if "ours" in figures.rows:
            figures.ratio(RATE, "ours", side, "our rate by it", row=side)
    return figures


def _turn(side: str, config: Path, workers: int) -> Mapping[str, float]:
    watched = run_side(side, config, workers)
    own = watched.result
    seconds, samples = own["until"] - own["from"], own["samples"]
    steady = {STEADY: own["steady"]} if "steady" in own else {}
    return {
        RATE: samples / seconds,
        **steady,
        CPU: 1000 * watched.cpu_between(own["from"], own["until"]) / samples,
        "first shard, s": own["first_s"],
        "memory, GB": watched.peak / 1e9,
    }


def run_side(
    side: str, config: Path, workers: int, looks_per_memory: int = LOOKS_PER_MEMORY
) -> Watched:
    """One run of a side on a copy of the run's folder; see :func:`scoring_sides.run_side`."""
    output = config.parent / f"out-{side}"
    shutil.copytree(config.parent / "out", output)
    function = "jobs.benchmarks.scoring_sides:run_side"
    arguments = (side, str(config), str(output), workers)
    watched = call_watched(function, *arguments, looks_per_memory=looks_per_memory)
    shutil.rmtree(output)
    return watched


if __name__ == "__main__":
    runner.main("scoring")
