"""The metric, and scoring against held-out sets of several sizes.

Scoring takes from the held-out set its mean vectors alone, so a chunk of samples is scored in the
same time against any number of them; that is measured on the product's own functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from jobs.benchmarks import data, runner
from jobs.benchmarks.figures import Figures, Side, alternate
from jobs.benchmarks.runner import option
from multimem_ray.metric import MeanAccumulator, agreement, cmc
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank, pick_device
from multimem_ray.scoring.chunks import Chunk, ChunkReader
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import score_rows
from multimem_ray.scoring.shard import Scores, part_of
from multimem_ray.setup import inspect, load

SCORING, ALONE = "scoring, ms a sample", "of it consistency, ms a sample"
_BATCH = 2048


@dataclass(frozen=True)
class Options:
    """What is measured."""

    shards: tuple[str, ...] = option((), "WebDataset shards; default: the demo's")
    models: int = option(8, "reference models", quick=2)
    modalities: tuple[str, ...] = option((), "default: all", quick=("image", "text"))
    held_out: tuple[int, ...] = option((100, 100_000), "sizes of held-out sets", quick=(10, 1000))
    repeats: int = option(9, "turns of each size", quick=2)


def measure(options: Options, folder: Path) -> Figures:
    """The rate of the metric for one model, and the cost of a sample by the size of H."""
    figures = alternate({"metric, 4 views of 4 modalities": _metric()}, options.repeats)
    config = data.make_run(
        folder, options.shards, samples=1, models=options.models, modalities=options.modalities
    )
    run, shards = inspect(load(config, []))
    bank = ScoringBank(run, pick_device(run.config.resources.score.gpus))
    url = shards.scored[0].url
    chunk = next(chunk for chunk in ChunkReader(run).chunks(url) if chunk.decoded is not None)
    embedded = bank.embed(chunk.decoded).cpu() if chunk.decoded else torch.empty(0)
    sides = {f"{n:,} held out": _side(run, bank, url, chunk, embedded, n) for n in options.held_out}
    for side in sides.values():
        side()  # the first turn warms up
    alternate(sides, options.repeats, figures)
    small, large = f"{min(options.held_out):,} held out", f"{max(options.held_out):,} held out"
    for column, name in ((SCORING, "scoring by the smallest"), (ALONE, "consistency by it")):
        figures.ratio(column, large, small, name, row="the largest set")
    return figures


def _metric(samples: int = 2048, views: int = 4, modalities: int = 4, dim: int = 64) -> Side:
    generator = torch.Generator().manual_seed(0)
    embeddings = normalize(torch.randn(views, samples, modalities, dim, generator=generator), dim=3)
    present = torch.ones(samples, modalities, dtype=torch.bool)
    means = embeddings[0].mean(0)

    def side() -> dict[str, float]:
        seconds = _seconds(lambda: cmc(agreement(embeddings, present, means), present))
        return {"samples/s": samples / seconds}

    return side


def _side(run: Run, bank: ScoringBank, url: str, chunk: Chunk, embedded: Tensor, size: int) -> Side:
    started = time.perf_counter()
    statistics = HeldOutStatistics(means_of(run, bank, size))
    averaging_s, samples = time.perf_counter() - started, len(chunk.who.keys)
    present = chunk.decoded.present(run.modalities) if chunk.decoded else torch.empty(0)
    output = Scores(run, bank, statistics)

    def consistency() -> None:
        pairs = zip(embedded, statistics.means, strict=True)
        score_rows(run, url, chunk.who, present, [agreement(e, present, m) for e, m in pairs])

    def side() -> dict[str, float]:
        whole = _seconds(partial(part_of, output, chunk))
        return {
            "averaging them once, s": averaging_s,
            SCORING: 1000 * whole / samples,
            ALONE: 1000 * _seconds(consistency) / samples,
        }

    return side


def means_of(run: Run, bank: ScoringBank, size: int) -> Tensor:
    """(M, n, d) mean vectors of so many made-up held-out samples."""
    generator, names = torch.Generator().manual_seed(0), run.modalities
    sums = [MeanAccumulator(names, bank.dim) for _ in range(bank.count)]
    for first in range(0, size, _BATCH):
        count = min(_BATCH, size - first)
        vectors = torch.randn(1, count, len(names), bank.dim, generator=generator)
        present = torch.ones(count, len(names), dtype=torch.bool)
        for accumulator in sums:
            accumulator.add(normalize(vectors, dim=-1), present)
    return torch.stack([accumulator.means() for accumulator in sums])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    runner.main("consistency")
