"""What a sample costs on this machine: measured on a few, in this process, writing nothing.

Each part is timed alone on one core (or on the GPU, where the configuration asks for one and
there is one), after a run that warms it up. What several parts do to each other is left to
:mod:`multimem_ray.planning.estimate`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from multimem_ray.errors import SampleError, ShardError
from multimem_ray.metric import agreement
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import Batch
from multimem_ray.planning.work import first, spread
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Sample
from multimem_ray.scoring.rows import Identity, score_rows
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import DecodedSample
from multimem_ray.training.step import RankBatch, train_step
from multimem_ray.training.stream import Views, viewed

PROBED_SHARDS, PROBED_SAMPLES = 3, 192
_WARM_UP, _MIN_SECONDS, _MOST_REPEATS = 16, 0.5, 20

Decoded = Mapping[str, Array]


@dataclass(frozen=True)
class Speed:
    """Seconds per sample, one core or one GPU.

    Args:
        read: To read it from its shard.
        decode: To decode it.
        decoded_bytes: Bytes of its decoded arrays (no seconds).
        train_view: One training view of all its modalities.
        train_step: A step of one model, per sample of its batch.
        score_views: All ``scoring.views`` views.
        score_embed: Embedding all views with one model.
        score_rows: Scores out of the embeddings, all models.
        gpu: Name of the GPU that steps and embeds, or None on a CPU.
        step_peak_bytes: Most GPU memory in use during a step, None on a CPU.
        start: To start a process that has loaded Ray and torch (not per sample).
        samples: How many were measured (no seconds).
    """

    read: float
    decode: float
    decoded_bytes: float
    train_view: float
    train_step: float
    score_views: float
    score_embed: float
    score_rows: float
    gpu: str | None
    step_peak_bytes: int | None
    start: float
    samples: int


def probe(run: Run, shards: Shards) -> Speed:
    """Measure on a few samples.

    Raises:
        ShardError: None of the samples looked at can be used.
    """
    wants_gpu = run.config.resources.train.gpus or run.config.resources.score.gpus
    device = torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")
    with _one_thread():
        read, samples = _read(run, shards)
        decode, keys, decoded = _decode(run, samples)
        if not decoded:
            raise ShardError("none of its first samples can be used", shards.scored[0].url)
        views, made = _train_views(run, keys, decoded)
        step, peak = _train_step(run, made, device)
        score_views, score_embed, rows = _score(run, keys, decoded, device)
    sizes = [sum(a.nbytes for a in arrays.values()) for arrays in decoded]
    return Speed(
        read=read,
        decode=decode,
        decoded_bytes=sum(sizes) / len(sizes),
        train_view=views,
        train_step=step,
        score_views=score_views,
        score_embed=score_embed,
        score_rows=rows,
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        step_peak_bytes=peak,
        start=start_seconds(),
        samples=len(decoded),
    )


def start_seconds() -> float:
    """Seconds that a process takes to load what every worker loads."""
    started = time.perf_counter()
    command = [sys.executable, "-c", "import ray.train, torch"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own interpreter
    return time.perf_counter() - started


def _read(run: Run, shards: Shards) -> tuple[float, list[Sample]]:
    each = -(-PROBED_SAMPLES // PROBED_SHARDS)
    chosen = spread(shards.scored, PROBED_SHARDS)
    list(first(run, chosen[0], _WARM_UP))
    started = time.perf_counter()
    samples = [sample for shard in chosen for sample in first(run, shard, each)]
    return (time.perf_counter() - started) / max(len(samples), 1), samples


def _decode(run: Run, samples: Sequence[Sample]) -> tuple[float, list[str], list[Decoded]]:
    def decoded_of(some: Sequence[Sample]) -> Iterator[tuple[str, Decoded]]:
        for sample in some:
            try:
                yield sample.key, run.decoder.decode(sample)
            except SampleError:
                continue  # it costs its time, and scoring will list it

    list(decoded_of(samples[:_WARM_UP]))
    started = time.perf_counter()
    pairs = list(decoded_of(samples))
    seconds = (time.perf_counter() - started) / max(len(samples), 1)
    return seconds, [key for key, _ in pairs], [arrays for _, arrays in pairs]


def _train_views(
    run: Run, keys: Sequence[str], decoded: Sequence[Decoded]
) -> tuple[float, list[Views]]:
    samples = [DecodedSample(k, k, arrays) for k, arrays in zip(keys, decoded, strict=True)]

    def make() -> list[Views]:
        return list(viewed(run, samples, 0, torch.device("cpu")))

    return _seconds(make) / len(decoded), make()


def _train_step(run: Run, views: Sequence[Views], device: torch.device) -> tuple[float, int | None]:
    state = Bank(run, run.design.model_ids()[:1], device, threads=1).models[0]
    training = run.config.training
    size = training.batch_size
    repeated = [views[i % len(views)] for i in range(size)]

    def step() -> None:
        batch = Batch.of(repeated)
        train_step(state, training, RankBatch(batch, [""] * size, range(size), size), 0.0)
        state.losses.clear()
        _finish(device)

    seconds = _seconds(step) / size
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return seconds, peak


def _score(
    run: Run, keys: Sequence[str], decoded: Sequence[Decoded], device: torch.device
) -> tuple[float, float, float]:
    size = min(run.config.scoring.batch_size, len(decoded))
    keys, decoded = list(islice(keys, size)), list(islice(decoded, size))
    scoring = run.config.scoring

    @torch.inference_mode()
    def make() -> Batch:
        there = run.decoder.stacked(keys, decoded, scoring.seed, range(scoring.views)).to(device)
        return run.decoder.views(there)

    views_s, views = _seconds(make), make()
    model = Bank(run, run.design.model_ids()[:1], device, threads=1).models[0].model.eval()
    model.precision = run.config.scoring.precision
    names = run.modalities
    mean = torch.zeros(len(names), run.config.model.dim)

    @torch.inference_mode()
    def embed() -> torch.Tensor:
        out = torch.zeros(views.size, len(names), model.dim, device=device)
        for name, embedded in model.embed(model.prepare(views.values)).items():
            out[views.rows[name], names.index(name)] = embedded
        _finish(device)
        return out.view(-1, size, *out.shape[1:])

    embed_s = _seconds(embed)
    embedded = embed().cpu()
    who = Identity(list(keys), list(range(size)), [None] * size, list(keys))
    models, present = len(run.design.model_ids()), views.present(names)[:size].cpu()

    def rows() -> None:
        found = [agreement(embedded, present, mean) for _ in range(models)]
        score_rows(run, "probe", who, present, found)

    return views_s / size, embed_s / size, _seconds(rows) / size


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of one call, the fastest of some after one that warms up."""
    work()
    best, spent, repeats = float("inf"), 0.0, 0
    while repeats < 2 or (spent < _MIN_SECONDS and repeats < _MOST_REPEATS):
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        best, spent, repeats = min(best, seconds), spent + seconds, repeats + 1
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
