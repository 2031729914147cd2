"""Many reference models: in banks, as one Ray Train run each, and in plain PyTorch without Ray.

The same models on the same samples with the same cores, each side in a process of its own:

    banks     `multimem train`: all models in one bank
    plain     a loop over the same decoded samples in one process, no Ray
    separate  one `TorchTrainer` for each model, one after the other, each decoding for itself
    uncached  as banks, without the cache of decoded samples: every epoch decodes
    decode    decoding the samples once on one core and no more

Rates count everything from the start of the process; "training" is the time within the training
loop, decoding included, which tells throughput apart from start-up. Memory is USS, summed over all
processes of a side, the peak.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from jobs.benchmarks import data, runner
from jobs.benchmarks.figures import Figures, alternate
from jobs.benchmarks.runner import option
from jobs.benchmarks.watch import call_watched
from multimem_ray.audit import train
from multimem_ray.config import Config
from multimem_ray.distributed.session import ray_session
from multimem_ray.prefetch import ahead
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.setup import inspect, resolve
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from multimem_ray.training.stream import VIEWED_TOGETHER, shuffled, viewed

SIDES = ("banks", "plain", "separate", "uncached", "decode")
CORES = 2
WALL, TRAINING, CPU = "whole, s", "training, s", "CPU s"


@dataclass(frozen=True)
class Options:
    """What is measured."""

    shards: tuple[str, ...] = option((), "WebDataset shards; default: the demo's")
    samples: int = option(800, "of the demo's shards", quick=40)
    models: int = option(8, "reference models", quick=2)
    epochs: int = option(3, "of the training", quick=2)
    sides: tuple[str, ...] = option(SIDES[:3], "which of them", choices=SIDES)
    repeats: int = option(1, "turns of each side")


def measure(options: Options, folder: Path) -> Figures:
    """Times and memory of each side, the banks' speed by the others, and what the cache saved."""
    shards = data.shards_or_demo(options.shards, folder / "demo", options.samples)
    sizes = (shards, options.models, options.epochs)
    sides = {side: partial(_turn, side, *sizes) for side in options.sides}
    figures = alternate(sides, options.repeats)
    if "banks" in figures.rows:
        if "separate" in figures.rows:
            figures.ratio(WALL, "separate", "banks", "speed of banks by it")
        if "plain" in figures.rows:
            figures.ratio(TRAINING, "plain", "banks", "throughput of banks by it")
        if {"uncached", "decode"} <= figures.rows.keys():
            figures.add(
                "cache", {"CPU saved by that of decoding": cache_ratio(figures, options.epochs)}
            )
    return figures


def cache_ratio(figures: Figures, epochs: int) -> float:
    """CPU time that the cache saved, by that of decoding in all epochs but the first."""
    uncached, banks = (figures.median(side, CPU) for side in ("uncached", "banks"))
    decoding = figures.median("decode", TRAINING)
    if uncached is None or banks is None or decoding is None:
        raise ValueError("the sides banks, uncached and decode were not all measured")
    return (uncached - banks) / ((epochs - 1) * decoding)


def _turn(side: str, shards: Sequence[str], models: int, epochs: int) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        watched = call_watched(
            "jobs.benchmarks.training:run_side", side, shards, f"{folder}/out", models, epochs
        )
    # Separate runs hold one model in training at a time.
    held = 1 if side == "separate" else models
    return {
        WALL: watched.wall_s,
        TRAINING: watched.result,
        CPU: watched.cpu[-1][1],
        "memory, GB": watched.peak / 1e9,
        "GB a model": watched.peak / 1e9 / held,
    }


def run_side(side: str, shards: Sequence[str], output: str, models: int, epochs: int) -> float:
    """One run of a side; returns the seconds of its training loop."""
    config = resolve(
        {
            "output": output,
            "data": {"shards": "::".join(shards)},
            "design": {"models": models},
            "training": {"epochs": epochs, "held_out_samples": 0},
            "resources": {"train": {"cpus": CORES}, "cache_dir": f"{output}-cache"},
        }
    )
    return _RUNS[side](config)


def banks(config: Config) -> float:
    """All models in one bank; seconds of its epochs."""
    train(config, Progress())
    run, _ = inspect(config)
    # The models of a bank share its epochs.
    return sum(float(line["seconds"]) for line in run.model_folder("000").history())


def uncached(config: Config) -> float:
    """As :func:`banks`, decoding in every epoch."""
    training = config.training.model_copy(update={"cache_gb": 0.0})
    return banks(config.model_copy(update={"training": training}))


def decode(config: Config) -> float:
    """CPU seconds of decoding all training samples once."""
    run, shards = inspect(config)
    torch.set_num_threads(1)
    started = time.process_time()
    for shard in shards.scored:
        for _ in training_samples(run, shard):
            pass
    return time.process_time() - started


def plain(config: Config) -> float:
    """One process, no Ray: seconds of its epochs."""
    run, shards = inspect(config)
    torch.set_num_threads(1)
    return train_here(run, shards, run.design.model_ids(), CORES)


def separate(config: Config) -> float:
    """A TorchTrainer for each model, one after the other; seconds of all epochs."""
    # Ray Train reads its settings when it is loaded, after a session of the product wrote them.
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    run, shards = inspect(config)
    with ray_session(config.resources.ray_address):
        for model_id in run.design.model_ids():
            TorchTrainer(
                partial(one_model, run, shards, model_id),
                scaling_config=ScalingConfig(num_workers=1),
                run_config=RunConfig(name=model_id, storage_path=f"{config.output}-ray"),
            ).fit()
    folder = Path(config.output)
    return sum(float(path.read_text("utf-8")) for path in folder.glob("seconds-*"))


def one_model(run: Run, shards: Shards, model_id: str) -> None:
    """What a worker of :func:`separate` does."""
    torch.set_num_threads(CORES)
    seconds = train_here(run, shards, [model_id], 1)
    folder = Path(run.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seconds-{model_id}").write_text(str(seconds), encoding="utf-8")


def train_here(run: Run, shards: Shards, model_ids: Sequence[str], threads: int) -> float:
    """The epochs of some models in this process; decodes once, keeps the samples in memory."""
    training = run.config.training
    bank = Bank(run, model_ids, torch.device("cpu"), threads)
    started = time.monotonic()
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    members = run.design.members([s.group for s in decoded]).tolist()

    def epoch(number: int) -> Iterator[tuple[Any, Any, float]]:
        order = shuffled(range(len(decoded)), training.shuffle_buffer, training.seed, number)
        place = 0
        while block := list(islice(order, VIEWED_TOGETHER)):
            made = viewed(run, [decoded[index] for index in block], number, torch.device("cpu"))
            for index, views in zip(block, made, strict=True):
                yield views, members[index], place / len(decoded)
                place += 1

    for number in range(training.epochs):
        bank.train_epoch(number, ahead(epoch(number), 256))
    return time.monotonic() - started


_RUNS = dict(zip(SIDES, (banks, plain, separate, uncached, decode), strict=True))

if __name__ == "__main__":
    runner.main("training")
