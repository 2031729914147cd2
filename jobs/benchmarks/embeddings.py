"""Scoring stored embeddings beside reading them.

bare     pyarrow reads all columns of all files, one thread, and does nothing with them
ours     the product in this process opens the set, makes the held-out means, scores, commits

Both run in this process on the same files, in turns, one thread each, by the clock and by the CPU
time of the process, which other work on the machine does not change.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from jobs.benchmarks import runner
from jobs.benchmarks.figures import Figures, alternate
from jobs.benchmarks.runner import option
from multimem_ray.distributed.executor import LocalExecutor
from multimem_ray.embeddings.source import source_of
from multimem_ray.progress import Progress
from multimem_ray.scoring.pipeline import score
from multimem_ray.setup import open_run, resolve

NAMES = ("audio", "image", "text", "video")
_CHUNK = 8192


@dataclass(frozen=True)
class Options:
    """A made-up set of normal vectors."""

    samples: int = option(20_000, "samples of the set", quick=400)
    dim: int = option(512, "numbers of a vector", quick=16)
    models: int = option(4, "models, a file each", quick=2)
    modalities: int = option(3, "two to four")
    repeats: int = option(5, "turns of each side", quick=1)

    @property
    def bytes(self) -> int:
        """Bytes of vectors."""
        return 4 * self.samples * self.dim * self.models * self.modalities


def measure(options: Options, folder: Path) -> Figures:
    """Rates of both sides, and ours by that of reading alone."""
    files = make_files(folder / "files", options)
    sides = {
        "bare": partial(_turn, partial(bare, files), options.bytes),
        "ours": partial(_turn, partial(score_all, files, str(folder / "out")), options.bytes),
    }
    sides["bare"]()  # the first one reads from the disk
    figures = alternate(sides, options.repeats)
    for column, name in (("MB/s", "rate by bare"), ("MB/s of CPU time", "by CPU time")):
        figures.ratio(column, "ours", "bare", name)
    return figures


def _turn(work: Callable[[], object], size: int) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"MB/s": size / wall / 1e6, "MB/s of CPU time": size / cpu / 1e6}


def make_files(folder: Path, size: Options, *, aligned: bool = True) -> list[str]:
    """One Parquet file per model; if not aligned, every other model has the rows backwards."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"model{model}.parquet" for model in range(size.models)]
    for model, path in enumerate(files):
        schema = _rows(np.arange(1), model, size).schema
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for first in range(0, size.samples, _CHUNK):
                places = np.arange(first, min(first + _CHUNK, size.samples))
                if not aligned and model % 2 == 1:
                    places = size.samples - 1 - places
                writer.write_table(_rows(places, model, size), row_group_size=_CHUNK)
    return [str(path) for path in files]


def _rows(places: Any, model: int, size: Options) -> pa.Table:
    rng = np.random.default_rng([model, int(places[0])])
    columns: dict[str, Any] = {"key": [f"sample-{place:09d}" for place in places]}
    for name in NAMES[: size.modalities]:
        values = rng.standard_normal(len(places) * size.dim, dtype=np.float32)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values), size.dim)
    return pa.table(columns)


def bare(files: Sequence[str]) -> None:
    """Read everything and keep nothing."""
    for path in files:
        with pq.ParquetFile(path) as file:  # noqa: TID251 - pyarrow alone is what is measured
            for _ in file.iter_batches(_CHUNK, use_threads=False):
                pass


def score_all(files: Sequence[str], output: str) -> None:
    """All the work of a run on stored embeddings, in this process with one thread."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    shutil.rmtree(output, ignore_errors=True)
    raw = {
        "data": {"embeddings": {"models": list(files)}},
        "design": {"kind": "complementary_halves"},
    }
    run, shards = open_run(resolve(raw | {"output": output}))
    score(run, shards, Progress(Console(quiet=True)), source_of(run), LocalExecutor())


if __name__ == "__main__":
    runner.main("embeddings")
