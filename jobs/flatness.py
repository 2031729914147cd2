"""What must not grow: the cost of consistency with the held-out set, and memory with the data.

    python jobs/benchmark.py [SHARDS …] --sides '' --held-out 100,100000
    python jobs/benchmark.py [SHARDS …] --sides '' --memory 2000,50000

Scoring takes from the held-out set its mean vectors alone, so a chunk of samples is scored in the
same time against any number of them; that is measured on the product's own functions, sizes in
turns. Memory is that of whole runs of the product, each in processes of its own: the most that the
driver, and any process of a kind, held of its own (USS).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from multimem_ray.metric import MeanAccumulator, agreement
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank, pick_device
from multimem_ray.scoring.chunks import Chunk, ChunkReader
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import score_rows
from multimem_ray.scoring.shard import Scores, part_of

REPEATS = 9
_BATCH = 2048


@dataclass(frozen=True)
class AgainstHeldOut:
    """Scoring against so many held-out samples.

    Attributes:
        held_out: |H|.
        means_s: Seconds to average their embeddings, once in a run.
        chunk_ms: Milliseconds a sample takes to be embedded and scored; the median.
        consistency_ms: Milliseconds of that without embedding.
    """

    held_out: int
    means_s: float
    chunk_ms: float
    consistency_ms: float


def against_held_out(run: Run, url: str, sizes: Sequence[int]) -> list[AgainstHeldOut]:
    """Score a chunk of a shard against held-out sets of several sizes, in turns."""
    bank = ScoringBank(run, pick_device(run.config.resources.score.gpus))
    chunk = next(chunk for chunk in ChunkReader(run).chunks(url) if chunk.views is not None)
    found, outputs, means_s = {}, {}, {}
    for size in sizes:
        started = time.perf_counter()
        found[size] = HeldOutStatistics(means_of(run, bank, size))
        means_s[size] = time.perf_counter() - started
        outputs[size] = Scores(run, bank, found[size])
    samples = len(chunk.who.keys)
    whole = _in_turns({n: partial(part_of, outputs[n], chunk) for n in sizes})
    embedded = bank.embed(chunk.views).cpu() if chunk.views else torch.empty(0)
    alone = _in_turns(
        {n: partial(_consistency, run, url, chunk, embedded, found[n]) for n in sizes}
    )
    return [
        AgainstHeldOut(n, means_s[n], 1000 * whole[n] / samples, 1000 * alone[n] / samples)
        for n in sizes
    ]


def means_of(run: Run, bank: ScoringBank, size: int) -> Tensor:
    """(M, n, d) mean vectors of so many made-up held-out samples."""
    generator, names = torch.Generator().manual_seed(0), run.modalities
    sums = [MeanAccumulator(names, bank.dim) for _ in range(bank.count)]
    for first in range(0, size, _BATCH):
        count = min(_BATCH, size - first)
        vectors = torch.randn(1, count, len(names), bank.dim, generator=generator)
        present = torch.ones(count, len(names), dtype=torch.bool)
        for accumulator in sums:
            accumulator.add(torch.nn.functional.normalize(vectors, dim=-1), present)
    return torch.stack([accumulator.means() for accumulator in sums])


def _consistency(
    run: Run, url: str, chunk: Chunk, embedded: Tensor, held: HeldOutStatistics
) -> None:
    present = chunk.views.present if chunk.views else torch.empty(0)
    pairs = zip(embedded, held.means, strict=True)
    score_rows(run, url, chunk.who, present, [agreement(e, present, m) for e, m in pairs])


def _in_turns(work: Mapping[int, Callable[[], object]]) -> dict[int, float]:
    """Median seconds of each, taking turns; the first turn does not count."""
    seconds: dict[int, list[float]] = {name: [] for name in work}
    for _ in range(REPEATS + 1):
        for name, do in work.items():
            started = time.perf_counter()
            do()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(own[1:]) for name, own in seconds.items()}


def held_out_table(found: Sequence[AgainstHeldOut]) -> str:
    """Markdown."""
    lines = [
        "| held-out samples | averaging them, once | scoring a sample | of it consistency |",
        "|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {one.held_out:,} | {one.means_s:.2f} s | {one.chunk_ms:.3f} ms "
        f"| {one.consistency_ms:.4f} ms |"
        for one in found
    ]
    return "\n".join([*lines, ""])


def memory_table(peaks: Mapping[int, Mapping[str, int]]) -> str:
    """Markdown; peaks in bytes by number of samples and title of the process."""
    sizes = sorted(peaks)
    lines = [
        f"| peak memory (USS) | {' | '.join(f'{n:,} samples' for n in sizes)} | ratio |",
        f"|---|{'---:|' * (len(sizes) + 1)}",
    ]
    lines += _memory_lines(peaks, sizes)
    return "\n".join([*lines, ""])


def _memory_lines(peaks: Mapping[int, Mapping[str, int]], sizes: Sequence[int]) -> Iterator[str]:
    titles = {title for own in peaks.values() for title in own}
    largest = peaks[sizes[-1]]
    for title in sorted(titles, key=lambda t: -largest.get(t, 0)):
        own = [peaks[n].get(title) for n in sizes]
        shown = [f"{peak / 1e6:,.0f} MB" if peak else "–" for peak in own]
        ratio = f"{own[-1] / own[0]:.2f}" if own[0] and own[-1] else "–"
        yield f"| {_kind(title)} | {' | '.join(shown)} | {ratio} |"


def _kind(title: str) -> str:
    return f"{title} (the driver is one)" if title.startswith("python") else title
