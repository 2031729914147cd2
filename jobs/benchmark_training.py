"""Many reference models: in banks, as one Ray Train run each, and in plain PyTorch without Ray.

    python jobs/benchmark_training.py SHARDS [--models 8] [--epochs 3] [--parts banks plain]

The same models on the same samples with the same cores, start-up included:

    banks     `multimem train`: all models in one bank
    separate  one `TorchTrainer` for each model, one after the other, each decoding for itself
    plain     a loop over the same decoded samples in one process, no Ray
    uncached  as banks, without the cache of decoded samples: every epoch decodes
    decode    decoding the samples once on one core and no more; its `train_s` are CPU seconds

Each part runs in a process of its own; its wall time, CPU time and memory (USS, summed over all of
its processes, the peak) are measured from outside. `train_s` is the time within the training loop,
which tells throughput apart from start-up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from jobs.watch import watch
from multimem_ray.config import Config
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.setup import inspect, resolve

PARTS = ("banks", "plain", "separate", "uncached", "decode")
CORES = 2


@dataclass(frozen=True)
class Result:
    """What a part took: seconds, and bytes of host memory at the peak."""

    part: str
    wall_s: float
    train_s: float
    cpu_s: float
    memory: float


def main() -> None:
    """Measure the parts and show them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shards")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1, help="alternating runs; medians count")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:3]))
    parser.add_argument("--run", help=argparse.SUPPRESS)  # one part, in this process
    parser.add_argument("--output", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        config = benchmark_config(given.shards, given.output, given.models, given.epochs)
        seconds = _RUNS[given.run](config)
        Path(given.output, "train_s.json").write_text(json.dumps(seconds), encoding="utf-8")
        return
    runs = [
        measure(part, given.shards, given.models, given.epochs)
        for _ in range(given.repeats)
        for part in given.parts
    ]
    show(runs, given.models, given.epochs)


def benchmark_config(shards: str, output: str, models: int, epochs: int) -> Config:
    """The same training for every part."""
    return resolve(
        {
            "output": output,
            "data": {"shards": shards},
            "design": {"models": models},
            "training": {"epochs": epochs, "held_out_samples": 0},
            "resources": {"train": {"cpus": CORES}, "cache_dir": f"{output}-cache"},
        }
    )


def banks(config: Config) -> float:
    """All models in one bank; seconds of its epochs."""
    from multimem_ray.audit import train

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
    from multimem_ray.training.decode import training_samples

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
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from multimem_ray.distributed.session import ray_session

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
    from multimem_ray.prefetch import ahead
    from multimem_ray.training.bank import Bank
    from multimem_ray.training.decode import training_samples
    from multimem_ray.training.stream import shuffled

    training = run.config.training
    bank = Bank(run, model_ids, torch.device("cpu"), threads)
    started = time.monotonic()
    decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
    members = run.design.members([s.group for s in decoded]).tolist()

    def epoch(number: int) -> Iterator[tuple[Any, Any, float]]:
        order = shuffled(range(len(decoded)), training.shuffle_buffer, training.seed, number)
        for place, index in enumerate(order):
            sample = decoded[index]
            views = run.decoder.views(sample.key, sample.arrays, training.seed, number, "train")
            yield views, members[index], place / len(decoded)

    for number in range(training.epochs):
        bank.train_epoch(number, ahead(epoch(number), 256))
    return time.monotonic() - started


_RUNS = {
    "banks": banks,
    "plain": plain,
    "separate": separate,
    "uncached": uncached,
    "decode": decode,
}


def measure(part: str, shards: str, models: int, epochs: int) -> Result:
    """Run a part in a process of its own and watch all of its processes."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "out")
        Path(output).mkdir()
        sizes = ["--models", str(models), "--epochs", str(epochs)]
        command = [sys.executable, __file__, shards, *sizes, "--run", part, "--output", output]
        watched = watch(command)
        seconds = float(json.loads(Path(output, "train_s.json").read_text("utf-8")))
        return Result(part, watched.wall_s, seconds, watched.cpu[-1][1], watched.peak)


def show(runs: Sequence[Result], models: int, epochs: int) -> None:
    """A table, and the quotients that matter."""
    console = Console()
    table = Table(
        "part", "wall s", "of it training s", "CPU s", "memory GB", "GB per model",
        title=f"{models} models, {epochs} epochs, {CORES} cores",
    )  # fmt: skip
    by_part: dict[str, list[Result]] = {}
    for run in runs:
        by_part.setdefault(run.part, []).append(run)
    for part, own in by_part.items():
        r = median_of(own)
        # Separate runs hold one model in training at a time.
        per_model = r.memory / (1 if r.part == "separate" else models)
        row = (r.wall_s, r.train_s, r.cpu_s, r.memory / 1e9, per_model / 1e9)
        table.add_row(part, *(f"{value:.2f}" for value in row))
    console.print(table)
    for other, what, of in (
        ("separate", "banks are {:.2f} × faster than separate runs", "wall_s"),
        ("plain", "throughput of the plain loop: {:.2f}", "train_s"),
    ):
        pairs = zip(by_part.get("banks", []), by_part.get(other, []), strict=False)
        ratios = [getattr(b, of) / getattr(a, of) for a, b in pairs]
        if ratios:
            console.print(what.format(statistics.median(ratios)))
    if {"banks", "uncached", "decode"} <= by_part.keys():
        console.print(cache_line({part: median_of(own) for part, own in by_part.items()}, epochs))


def cache_line(found: Mapping[str, Result], epochs: int) -> str:
    """What the cache saved beside what decoding costs, in CPU seconds: a busy machine adds none."""
    saved = found["uncached"].cpu_s - found["banks"].cpu_s
    cost = (epochs - 1) * found["decode"].train_s
    return (
        f"the cache saved {saved:.1f} CPU s in {epochs - 1} epochs, in which decoding costs "
        f"{cost:.1f}: {saved / cost:.2f}"
    )


def median_of(runs: Sequence[Result]) -> Result:
    """Each figure's median."""
    names = ("wall_s", "train_s", "cpu_s", "memory")
    return Result(
        runs[0].part, *(statistics.median(getattr(run, name) for run in runs) for name in names)
    )


if __name__ == "__main__":
    main()
