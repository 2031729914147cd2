"""Scoring on this machine: its parts, and the whole of it against other ways to do the same.

    python jobs/benchmark.py [SHARDS …] [--models 8] [--samples 4000] [--repeats 3]
                             [--modalities audio,image,text] [--sides bare,ours,naive,chained]
                             [--held-out 100,100000] [--memory 2000,50000]
                             [--json benchmark.json]

The parts come first, and decoding beside the bare decoders (:mod:`jobs.decoding`); with
``--sides ''`` that is all. Without shards, the demo's are made; shards are repeated up to the
wanted number of samples. The sides (see :mod:`jobs.sides`) run in turns, each in a process of its
own, so that what else goes on on the machine meets all of them; medians count. On a busy machine
look at the CPU time a sample takes, over all processes: it depends less on the others. Models are
untrained: that costs the same. What must not grow, with the held-out set or with the data, is
measured on demand (:mod:`jobs.flatness`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console

from jobs import command, decoding, flatness, parts, sides
from jobs.watch import LOOKS_PER_MEMORY, watch
from multimem_ray.config import Config
from multimem_ray.demo.dataset import make_demo_shards
from multimem_ray.models.build import build_model
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.setup import inspect, load, resolve
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo, Storage

DEMO_SAMPLES = 250


def main(arguments: list[str]) -> None:
    """Measure, write a table to the terminal and everything as JSON."""
    options = _options(arguments)
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="multimem-bench-") as name:
        folder = Path(name)
        shards = options.shards or [
            str(p) for p in make_demo_shards(folder / "demo", samples=DEMO_SAMPLES)
        ]
        found: dict[str, Any] = {"machine": machine(), "options": vars(options)}
        if not options.no_parts:
            found["parts"] = [vars(rate) for rate in parts.measure(shards)]
            console.print(parts_table(found["parts"]), markup=False)
            beside = list(decoding.compare(shards, parts.MOST_SAMPLES // 5))
            found["decoding"] = [vars(comparison) for comparison in beside]
            console.print(decoding.table(beside), markup=False)
        if options.held_out:
            found["held_out"] = against_held_out(folder / "held-out", shards, options, console)
        if options.memory:
            found["memory"] = memory(folder, shards, options, console)
        if options.sides:
            config = prepare(folder, shards, options)
            found["sides"] = compare(folder, config, options, console)
            console.print(sides_table(found["sides"]), markup=False)
    _write(found, options, console)


def against_held_out(
    folder: Path, shards: list[str], options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """Scoring against held-out sets of several sizes."""
    run, of_run = inspect(load(prepare(folder, shards, options, samples=1), []))
    sizes = [int(size) for size in options.held_out.split(",")]
    rows = flatness.against_held_out(run, of_run.scored[0].url, sizes)
    console.print(flatness.held_out_table(rows), markup=False)
    return [vars(row) for row in rows]


def memory(
    folder: Path, shards: list[str], options: argparse.Namespace, console: Console
) -> dict[int, dict[str, int]]:
    """Peak memory of each kind of process in runs of several sizes."""
    peaks: dict[int, dict[str, int]] = {}
    for size in sorted(int(size) for size in options.memory.split(",")):
        own = folder / f"memory-{size}"
        config = prepare(own, shards, options, samples=size)
        found = run_once(own, config, "ours", options.workers, 0, looks_per_memory=2)
        peaks[size] = found["peak_uss_by_process"] | {"all processes together": found["peak_uss"]}
        shutil.rmtree(own)
    console.print(flatness.memory_table(peaks), markup=False)
    return peaks


def _write(found: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
        console.print(f"written: {options.json}", markup=False)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmark of scoring.")
    parser.add_argument("shards", nargs="*", help="WebDataset shards; default: the demo's")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4000, help="shards are repeated up to this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--modalities", default="", help="such as audio,image,text; default: all")
    parser.add_argument("--sides", default=",".join(sides.SIDES))
    parser.add_argument("--held-out", default="", help="sizes of H to score against, such as 9,99")
    parser.add_argument("--memory", default="", help="samples of runs whose memory is compared")
    parser.add_argument("--json", default="", help="where everything is written")
    parser.add_argument("--no-parts", action="store_true", help="leave the parts out")
    return parser.parse_args(arguments)


def prepare(
    folder: Path, shards: list[str], options: argparse.Namespace, samples: int | None = None
) -> Path:
    """A run of untrained models on shards that are repeated to size; its configuration.

    Args:
        samples: Size; default: that of the options.
    """
    copies = _repeated(folder / "shards", shards, samples or options.samples)
    config = _config(folder, options, None)
    run, _ = inspect(config)
    if options.modalities:
        wanted = options.modalities.split(",")
        config = _config(folder, options, {name: run.fields[name] for name in wanted})
        run, _ = inspect(config)
    finish_models(run)
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    count = len(copies)
    Console(stderr=True).print(f"{count} shards; {', '.join(run.modalities)}", markup=False)
    return path


def _config(folder: Path, options: argparse.Namespace, fields: dict[str, str] | None) -> Config:
    data: dict[str, Any] = {"shards": str(folder / "shards" / "*.tar")}
    return resolve(
        {
            "output": str(folder / "out"),
            "data": data | ({"fields": fields} if fields else {}),
            "design": {"models": options.models},
            "resources": {"score": {"actors": options.workers}},
        }
    )


def _repeated(folder: Path, shards: list[str], samples: int) -> list[Path]:
    storage = Storage()
    found = find_shards(shards, storage).shards
    sizes = [_samples(shard, storage) for shard in found]
    folder.mkdir(parents=True)
    made: list[Path] = []
    while not made or sum(sizes[i % len(found)] for i in range(len(made))) < samples:
        shard = found[len(made) % len(found)]
        with storage.local_copy(shard.url) as source:
            made.append(Path(shutil.copy(source, folder / f"{len(made):06d}.tar")))
    return made


def _samples(shard: FileInfo, storage: Storage) -> int:
    return sum(isinstance(item, Sample) for item in read_shard(shard.url, storage))


def finish_models(run: Run) -> None:
    """All models of a run as if they were trained."""
    for number, model_id in enumerate(run.design.model_ids()):
        model = build_model(run.config.model, run.decoder.modalities, seed=number)
        run.model_folder(model_id).finish(model, {}, {})


def compare(
    folder: Path, config: Path, options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """Every run of every side, in turns."""
    runs = []
    for repeat in range(options.repeats):
        for side in options.sides.split(","):
            result = run_once(folder, config, side, options.workers, repeat)
            console.print(f"{side:8} {result['samples_per_s']:8.1f} samples/s", markup=False)
            runs.append(result)
    if any(run["with_start"] for run in runs):
        said = f"{sides.FEW} shards for each worker or fewer: the rates have the start in them"
        console.print(f"{said}; take more --samples", markup=False)
    return runs


def run_once(
    folder: Path,
    config: Path,
    side: str,
    workers: int,
    repeat: int,
    looks_per_memory: int = LOOKS_PER_MEMORY,
) -> dict[str, Any]:
    """One run of one side in a process of its own, with the memory of all its processes."""
    output = folder / f"out-{side}-{repeat}"
    shutil.copytree(folder / "out", output)
    result = folder / f"{side}-{repeat}.json"
    command = [sys.executable, "-m", "jobs.sides", side, str(config), str(output), str(workers)]
    watched = watch([*command, str(result)], looks_per_memory)
    shutil.rmtree(output)
    found: dict[str, Any] = json.loads(result.read_text())
    spent = watched.cpu_between(found["from"], found["until"])
    found["cpu_ms_per_sample"] = 1000 * spent / found["counted"]
    return found | {
        "peak_uss": watched.peak,
        "peak_uss_by_process": watched.peaks,
        "load_before": watched.load_before,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    names = ("ray", "torch", "numpy", "pyarrow", "av", "soundfile", "pillow")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def parts_table(rates: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| part, one process | rate |", "|---|---:|"]
    lines += [f"| {r['part']} | {r['value']:,.0f} {r['unit']} |" for r in rates]
    return "\n".join([*lines, ""])


def sides_table(runs: list[dict[str, Any]]) -> str:
    """Markdown: medians, and the median of the ratios to the bare side of the same turn."""
    by_side: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_side.setdefault(run["side"], []).append(run)
    lines = [
        "| side | samples/s | of bare | CPU a sample | of bare | first result | memory (USS) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for side, own in by_side.items():
        rate, cpu, first, memory = (
            statistics.median(run[key] for run in own)
            for key in ("samples_per_s", "cpu_ms_per_sample", "first_s", "peak_uss")
        )
        bare = by_side.get("bare", [])
        lines.append(
            f"| {side} | {rate:,.0f} | {_ratio(own, bare, 'samples_per_s')} | {cpu:.2f} ms "
            f"| {_ratio(own, bare, 'cpu_ms_per_sample')} | {first:.1f} s | {memory / 1e9:.1f} GB |"
        )
    return "\n".join(lines)


def _ratio(own: list[dict[str, Any]], bare: list[dict[str, Any]], key: str) -> str:
    ratios = [a[key] / b[key] for a, b in zip(own, bare, strict=False)]
    return f"{statistics.median(ratios):.2f}" if ratios else "–"


if __name__ == "__main__":
    command.run(partial(main, sys.argv[1:]))
