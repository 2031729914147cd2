"""What reaches the models, on one core and on two: a sink stands in their place.

    bare       the fastest decoder for JPEG known here, of the same files, already in memory
    scoring    chunks of decoded samples, all that crosses to a device
    training   blocks of decoded samples, from the cache
    …, viewed  the same with the views made, which a GPU makes beside its models

Each turn is a process that may use so many cores, with as many threads. Starting it and writing
the cache are not part of a rate; reading the shards and decoding the captions are, but for the bare
decoder. ``by bare`` is of the same number of cores; ``by one core`` says what the second is worth.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from jobs.benchmarks import data, runner
from jobs.benchmarks.figures import Figures, alternate
from jobs.benchmarks.gpu import make_shards
from jobs.benchmarks.runner import option
from jobs.benchmarks.watch import call_watched
from multimem_ray.config import Config
from multimem_ray.prefetch import ahead
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.chunks import ChunkReader
from multimem_ray.setup import inspect, resolve
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.stream import VIEWED_TOGETHER, TrainingStream

RATE = "samples/s"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    samples: int = option(2048, "pictures with captions", quick=32)
    picture: int = option(256, "pixels of a picture's side", quick=40)
    size: int = option(224, "pixels of a view's side", quick=32)
    cores: int = option(2, "cores beside one")
    repeats: int = option(3, "turns of each side", quick=1)
    sides: tuple[str, ...] = option(
        ("bare", "scoring", "scoring, viewed", "training", "training, viewed"), "which of them"
    )


def measure(options: Options, folder: Path) -> Figures:
    """Samples a second of each side; by the bare decoder; two cores by one."""
    make_shards(folder / "shards", options.samples, options.picture)
    counts = (1, options.cores)
    sides = {
        _row(side, cores): partial(_turn, side, str(folder), options.size, cores)
        for side in options.sides
        for cores in counts
    }
    figures = alternate(sides, options.repeats)
    for side in options.sides:
        figures.ratio(RATE, _row(side, options.cores), _row(side, 1), "by one core")
        if side != "bare" and "bare" in options.sides:
            for cores in counts:
                figures.ratio(RATE, _row(side, cores), _row("bare", cores), "by bare")
    return figures


def _row(side: str, cores: int) -> str:
    return f"{side}, {cores} core" + ("s" if cores > 1 else "")


def _turn(side: str, folder: str, size: int, cores: int) -> dict[str, float]:
    watched = call_watched("jobs.benchmarks.feed:run_side", side, folder, size, cores)
    return {RATE: watched.result}


def config_of(folder: str, size: int) -> Config:
    """The run whose samples are fed."""
    return resolve(
        {
            "output": f"{folder}/out",
            "data": {"shards": f"{folder}/shards/*.tar"},
            "modalities": {"image": {"size": size}},
        }
    )


def run_side(side: str, folder: str, size: int, cores: int) -> float:
    """Samples a second that a side gives to the sink; two threads of torch would be more cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(1)
    run, shards = inspect(config_of(folder, size))
    kind, _, viewed = side.partition(", ")
    feed = SIDES[kind](run, shards, Path(folder), cores, viewed=bool(viewed))
    started = time.perf_counter()
    count: int = sum(feed)
    return count / (time.perf_counter() - started)


def _bare(run: Run, shards: Shards, folder: Path, cores: int, *, viewed: bool) -> Iterable[int]:
    from torchvision.io import ImageReadMode, decode_jpeg

    del run, folder, viewed
    files = [
        torch.frombuffer(bytearray(sample.members["jpg"]), dtype=torch.uint8)
        for shard in shards.scored
        for sample in data.read_samples([shard.url])
    ]

    def feed() -> Iterable[int]:
        with ThreadPoolExecutor(cores) as pool:
            for _ in pool.map(partial(decode_jpeg, mode=ImageReadMode.RGB), files):
                yield 1

    return feed()


def _scoring(run: Run, shards: Shards, folder: Path, cores: int, *, viewed: bool) -> Iterable[int]:
    del folder
    reader = ChunkReader(run, keep_held_out=True)
    for shard in shards.scored:
        for chunk in ahead(reader.chunks(shard.url, threads=cores), 2):
            if viewed and chunk.decoded is not None:
                run.decoder.views(chunk.decoded)
            yield chunk.end - chunk.first


def _training(run: Run, shards: Shards, folder: Path, cores: int, *, viewed: bool) -> Iterable[int]:
    stream = TrainingStream(run, shards.scored, DecodedCache(folder / "cache", 1 << 40), cores)
    for _ in stream.epoch(0):  # what the cache lacks is decoded now
        pass

    def feed() -> Iterable[int]:
        if viewed:
            yield from (1 for _ in ahead(stream.samples(1), 2 * VIEWED_TOGETHER))
            return
        samples = (sample for sample, _ in ahead(stream.epoch(1), 2 * VIEWED_TOGETHER))
        while block := list(islice(samples, VIEWED_TOGETHER)):
            keys, arrays = [one.key for one in block], [one.arrays for one in block]
            yield len(run.decoder.stacked(keys, arrays, 0, [1], "train").present(["image"]))

    return feed()


SIDES: dict[str, Callable[..., Any]] = {
    "bare": _bare,
    "scoring": _scoring,
    "training": _training,
}

if __name__ == "__main__":
    runner.main("feed")
