"""What scoring stored embeddings costs beside reading them.

    python jobs/benchmark_embeddings.py [--samples N] [--dim D] [--models M] [--json FILE]

bare     pyarrow reads all columns of all files, one thread, and does nothing with them
ours     one worker process reads the same files, scores every sample and commits the scores

Both run in this process on the same files, in turns, one thread each; the rates are medians of the
repeats, by the clock and by the CPU time of the process (which other work on the machine does not
change). The pass before, which makes the held-out means, is told by itself. Then the memory of a
worker process (USS) is measured on sets of different size: files that stand alike, and files in
another order, which are joined on disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.config import Config
from multimem_ray.setup import resolve

NAMES = ("audio", "image", "text", "video")
_CHUNK = 8192
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Size:
    """A made-up set: vectors of normal numbers.

    Args:
        samples: Number of samples.
        dim: Numbers of a vector.
        models: Number of models.
        modalities: Number of modalities.
    """

    samples: int
    dim: int
    models: int
    modalities: int

    @property
    def bytes(self) -> int:
        """Bytes of vectors."""
        return 4 * self.samples * self.dim * self.models * self.modalities


def make_files(folder: Path, size: Size, *, aligned: bool = True) -> list[str]:
    """One Parquet file per model; if not aligned, every other model has the rows backwards."""
    found = []
    for model in range(size.models):
        path = folder / f"model{model}.parquet"
        backwards = not aligned and model % 2 == 1
        writer = None
        for first in range(0, size.samples, _CHUNK):
            places = np.arange(first, min(first + _CHUNK, size.samples))
            table = _rows(size.samples - 1 - places if backwards else places, model, size)
            writer = writer or pq.ParquetWriter(
                path, table.schema, compression="none", use_dictionary=False
            )
            writer.write_table(table, row_group_size=_CHUNK)
        if writer is not None:
            writer.close()
        found.append(str(path))
    return found


def _rows(places: Any, model: int, size: Size) -> pa.Table:
    rng = np.random.default_rng([model, int(places[0])])
    columns: dict[str, Any] = {"key": [f"sample-{place:09d}" for place in places]}
    for name in NAMES[: size.modalities]:
        values = rng.standard_normal(len(places) * size.dim, dtype=np.float32)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values), size.dim)
    return pa.table(columns)


def config_of(files: list[str], output: Path) -> Config:
    """An audit of the files."""
    return resolve(
        {
            "output": str(output),
            "data": {"embeddings": {"models": files}},
            "design": {"kind": "complementary_halves"},
        }
    )


def prepare(config: Config) -> Callable[[], None]:
    """Open a run, join what must be, make the means; returns what scores all units once."""
    import torch
    from rich.console import Console

    from multimem_ray.embeddings.join import spill
    from multimem_ray.embeddings.source import source_of
    from multimem_ray.embeddings.units import load_units
    from multimem_ray.embeddings.worker import UnitScorer
    from multimem_ray.progress import Progress
    from multimem_ray.scoring.held_out_plan import plan_held_out
    from multimem_ray.setup import open_run

    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    run, shards = open_run(config)
    units = load_units(run)
    for model, places in enumerate(units.joined):
        for place in places:
            spill(run, units, model, place)
    with Path("/dev/null").open("w") as nowhere:
        chosen = plan_held_out(run, shards, Progress(Console(file=nowhere)), source=source_of(run))
    scorer = UnitScorer(run, restarted=False)
    for item in chosen:
        scorer(_work("held_out", item.shard, 0, "", item.keys))

    def score() -> None:
        for shard in shards.scored:
            scorer(_work("shard", shard.url, shard.size, shard.version))

    return score


def _work(kind: str, url: str, size: int, version: str, keys: tuple[str, ...] = ()) -> Any:
    row = {"kind": kind, "url": url, "size": size, "version": version, "retry": "", "stale": "[]"}
    return {**row, "names": json.dumps(list(keys))}


def bare(files: list[str]) -> None:
    """Read everything and keep nothing."""
    for path in files:
        with pq.ParquetFile(path) as file:  # noqa: TID251 - pyarrow alone is what is measured
            for _ in file.iter_batches(_CHUNK, use_threads=False):
                pass


def compare(folder: Path, size: Size, repeats: int) -> dict[str, Any]:
    """Both sides in turns."""
    files = make_files(folder, size)
    started = time.perf_counter()
    ours = prepare(config_of(files, folder / "out"))
    before = time.perf_counter() - started
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    sides: dict[str, Callable[[], None]] = {"bare": lambda: bare(files), "ours": ours}
    for side in sides.values():
        side()
    for _ in range(repeats):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            side()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    found: dict[str, Any] = {"size": vars(size), "bytes": size.bytes, "held_out_pass_s": before}
    for name, spent in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*spent, strict=True))
        found[name] = {
            "wall_mb_per_s": size.bytes / wall / 1e6,
            "cpu_mb_per_s": size.bytes / cpu / 1e6,
            "cpu_us_per_sample": 1e6 * cpu / size.samples,
        }
    for place, kind in enumerate(("wall", "cpu")):
        pairs = zip(times["bare"], times["ours"], strict=True)
        found[f"{kind}_ratio"] = statistics.median(b[place] / o[place] for b, o in pairs)
    return found


def peak_memory(folder: Path, size: Size, *, aligned: bool) -> dict[str, Any]:
    """Most USS of a process that scores a set from opening it to its last commit."""
    files = make_files(folder, size, aligned=aligned)
    process = get_context("spawn").Process(target=_score_all, args=(files, str(folder / "out")))
    process.start()
    peak, seen = 0, psutil.Process(process.pid)
    while process.is_alive():
        try:
            peak = max(peak, seen.memory_full_info().uss)
        except psutil.Error:
            break
        time.sleep(_LOOK_EVERY_S)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"scoring ended with status {process.exitcode}")
    return {"samples": size.samples, "aligned": aligned, "bytes": size.bytes, "peak_uss": peak}


def _score_all(files: list[str], output: str) -> None:
    prepare(config_of(files, Path(output)))()


def tables(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = []
    if "speed" in found:
        speed = found["speed"]
        lines += ["| side | MB/s | MB/s of CPU time | CPU a sample |", "|---|---:|---:|---:|"]
        for name in ("bare", "ours"):
            side = speed[name]
            lines.append(
                f"| {name} | {side['wall_mb_per_s']:,.0f} | {side['cpu_mb_per_s']:,.0f} "
                f"| {side['cpu_us_per_sample']:.1f} µs |"
            )
        ratios = f"{speed['wall_ratio']:.2f} by the clock, {speed['cpu_ratio']:.2f} by CPU time"
        lines += ["", f"ours by bare: {ratios}", ""]
    if found.get("memory"):
        lines += ["| samples | files | vectors | peak USS |", "|---:|---|---:|---:|"]
        for one in found["memory"]:
            how = "stand alike" if one["aligned"] else "joined on disk"
            size, peak = one["bytes"] / 1e6, one["peak_uss"] / 1e6
            lines.append(f"| {one['samples']:,} | {how} | {size:,.0f} MB | {peak:,.0f} MB |")
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> None:
    """Measure what was asked for, and say it."""
    options = _options(arguments)
    found: dict[str, Any] = {"memory": []}
    if options.repeats:
        size = Size(options.samples, options.dim, options.models, options.modalities)
        with tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
            found["speed"] = compare(Path(folder), size, options.repeats)
    for samples in options.memory:
        for aligned in (True, False):
            size = Size(samples, 16, 2, 2)
            with tempfile.TemporaryDirectory(prefix="embeddings-") as folder:
                found["memory"].append(peak_memory(Path(folder), size, aligned=aligned))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    sys.stdout.write(tables(found))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--modalities", type=int, default=3, choices=range(2, len(NAMES) + 1))
    parser.add_argument("--repeats", type=int, default=5, help="0: no comparison of speed")
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[100_000, 1_000_000], help="sizes of sets"
    )
    parser.add_argument("--json", help="file for all figures")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
