"""Peak memory by the size of the data, which it must not grow with.

Scoring shards is a whole run of the product in processes of its own: the most that the driver, and
any process of a kind, held of its own (USS). Scoring stored embeddings is one worker, on files in
one order, and on files in different orders, which are joined on disk.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks import data, embeddings, runner
from jobs.benchmarks.figures import Figures
from jobs.benchmarks.runner import option
from jobs.benchmarks.scoring import run_side
from jobs.benchmarks.watch import call_watched

GROWTH = "largest by smallest"


@dataclass(frozen=True)
class Options:
    """What is measured; sizes are numbers of samples."""

    shards: tuple[str, ...] = option((), "WebDataset shards; default: the demo's")
    samples: tuple[int, ...] = option((2_000, 50_000), "sizes of shards", quick=(32, 64))
    stored: tuple[int, ...] = option(
        (100_000, 1_000_000), "sizes of sets of stored embeddings", quick=(500, 1000)
    )
    models: int = option(8, "reference models", quick=2)
    modalities: tuple[str, ...] = option((), "default: all", quick=("image", "text"))
    workers: int = option(len(os.sched_getaffinity(0)), "processes that score")


def measure(options: Options, folder: Path) -> Figures:
    """MB of each kind of process for each size, and what the largest takes of the smallest."""
    figures = Figures()
    for size in sorted(options.samples):
        own = folder / f"shards-{size}"
        config = data.make_run(
            own,
            options.shards,
            samples=size,
            models=options.models,
            modalities=options.modalities,
            workers=options.workers,
        )
        watched = run_side("ours", config, options.workers, looks_per_memory=2)
        for title, peak in {**watched.peaks, "all processes": watched.peak}.items():
            # The driver is one of those that the system calls python.
            figures.add(f"shards: {title}", {f"MB, {size:,} samples": peak / 1e6})
        shutil.rmtree(own)
    for aligned, about in ((True, "in one order"), (False, "joined on disk")):
        for size in sorted(options.stored):
            column = {f"MB, {size:,} stored": stored_peak(folder / "stored", size, aligned) / 1e6}
            figures.add(f"embeddings: {about}", column)
    for columns in figures.rows.values():
        peaks = [values[0] for values in columns.values()]
        if len(peaks) > 1:
            columns[GROWTH] = [peaks[-1] / peaks[0]]
    return figures


def stored_peak(folder: Path, samples: int, aligned: bool) -> int:
    """Most memory (USS, bytes) of a process that scores a set from opening it to its end."""
    size = embeddings.Options(samples, dim=16, models=2, modalities=2)
    files = embeddings.make_files(folder, size, aligned=aligned)
    score = "jobs.benchmarks.embeddings:score_all"
    looks = {"look_every_s": 0.02, "looks_per_memory": 1}
    peak = call_watched(score, files, str(folder / "out"), **looks).peak
    shutil.rmtree(folder)
    return peak


if __name__ == "__main__":
    runner.main("memory")
