"""The sides of the benchmark of scoring: ways to put the same samples through the same models.

    bare       plain processes with a queue of shards: what the machine can do; no Ray, no commits
    ours       multimem_ray: one actor has all models, a shard is committed by one marker
    naive      one pass over the data for each model
    chained    Ray Data: decode tasks, then one pool of actors for each model, one behind the other

All read, decode and embed with the same functions, on the same cores. A side tells when each shard
(``chained``: each batch) was finished, so that a second rate can leave out its start and its end.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any

import ray.data
import torch
from ray.data import ActorPoolStrategy
from rich.console import Console

from multimem_ray.distributed.on_ray import RayExecutor
from multimem_ray.distributed.session import data_context, ray_session
from multimem_ray.metric import cmc
from multimem_ray.prefetch import ahead
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.bank import ScoringBank, pick_device
from multimem_ray.scoring.chunks import ChunkReader
from multimem_ray.scoring.pipeline import score
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import inspect, load
from multimem_ray.store.commits import commit_log
from multimem_ray.store.markers import details

FEW = 4
"""Shards for each worker that are too few for a steady rate."""

Finished = tuple[float, int]
"""A time, and the number of samples that were finished then."""


def bare(run: Run, shards: Shards, workers: int) -> list[Finished]:
    """Plain processes; every sample decoded once and embedded by all models."""
    context = get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for shard in shards.scored:
        todo.put(shard.url)
    for _ in range(workers):
        todo.put(None)
    processes = [
        context.Process(target=_bare_worker, args=(run, todo, done)) for _ in range(workers)
    ]
    for process in processes:
        process.start()
    found = [done.get() for _ in shards.scored]
    for process in processes:
        process.join()
    return found


def _bare_worker(run: Run, todo: Any, done: Any) -> None:
    scorer = _Scorer(run)
    while (url := todo.get()) is not None:
        count = scorer.score(url)[1]
        done.put((time.time(), count))


class _Scorer:
    """Decodes shards and takes the consistency of their samples under some of the models."""

    def __init__(self, run: Run, models: Sequence[int] | None = None) -> None:
        score = run.config.resources.score
        device = pick_device(score.gpus)
        if device.type == "cpu":
            torch.set_num_threads(score.cpus)
        self.run, self.bank = run, ScoringBank(run, device, models)
        shape = (self.bank.count, len(run.modalities), run.config.model.dim)
        self.means = torch.zeros(shape, dtype=torch.float64)

    def score(self, url: str) -> tuple[Any, int]:
        """CMC of all samples under each model, and their number."""
        scores, count = [], 0
        for chunk in ahead(ChunkReader(self.run).chunks(url), 2):
            count += chunk.end - chunk.first
            if chunk.decoded is not None:
                found = self.bank.agreements(chunk.decoded, self.means)
                present = chunk.decoded.present(self.run.modalities)
                scores.append([cmc(agreement, present) for agreement in found])
        return scores, count


def ours(run: Run, shards: Shards, workers: int) -> list[Finished]:
    """The product: score, commit, account for."""
    with ray_session(run.config.resources.ray_address):
        score(run, shards, Progress(Console(quiet=True)), ShardSource(run), RayExecutor())
    commits = commit_log(run).load()
    return [(float(details(run.storage, c)["finished_at"]), c.samples) for c in commits]


def naive(run: Run, shards: Shards, workers: int) -> list[Finished]:
    """One pass for each model; a sample counts when all models have seen it."""
    models = len(run.design.model_ids())
    rows = [{"model": m, "url": s.url} for m in range(models) for s in shards.scored]
    with ray_session(run.config.resources.ray_address), data_context():
        passes = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _OneModel,  # type: ignore[arg-type]
            fn_constructor_args=(run,),
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        return [(row["time"], row["samples"] / models) for row in passes.iter_rows()]


class _OneModel:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._model: int | None = None
        self._scorer: _Scorer | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._scorer is None or row["model"] != self._model:
            self._model, self._scorer = row["model"], _Scorer(self._run, [row["model"]])
        count = self._scorer.score(row["url"])[1]
        return {"time": time.time(), "samples": count}


def chained(run: Run, shards: Shards, workers: int) -> list[Finished]:
    """Decode tasks and one pool of actors for each model, as a pipeline of Ray Data."""
    models = len(run.design.model_ids())
    rows = [{"url": shard.url} for shard in shards.scored]
    with ray_session(run.config.resources.ray_address), data_context():
        flow = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
            _Decode(run),
            num_cpus=0.5,
        )
        for model in range(models):
            flow = flow.map(
                _Stage,  # type: ignore[arg-type]
                fn_constructor_args=(run, model),
                compute=ActorPoolStrategy(size=1),
                num_cpus=workers / 2 / models,
            )
        flow = flow.select_columns(["samples"])
        return [(time.time(), row["samples"]) for row in flow.iter_rows()]


class _Decode:
    """A shard to decoded batches, as bytes."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for chunk in ChunkReader(self._run).chunks(row["url"]):
            yield {"samples": chunk.end - chunk.first, "decoded": pickle.dumps(chunk.decoded)}


class _Stage:
    """One model: adds its scores to the batch and hands it on."""

    def __init__(self, run: Run, model: int) -> None:
        self._scorer, self._name = _Scorer(run, [model]), f"cmc_{model}"

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        decoded = pickle.loads(row["decoded"])  # noqa: S301 - made by the stage before, in this run
        (agreement,) = self._scorer.bank.agreements(decoded, self._scorer.means)
        present = decoded.present(self._scorer.run.modalities)
        return {**row, self._name: cmc(agreement, present).numpy()}


SIDES: dict[str, Callable[[Run, Shards, int], list[Finished]]] = {
    "bare": bare,
    "ours": ours,
    "naive": naive,
    "chained": chained,
}


def run_side(side: str, config: str, output: str, workers: int) -> dict[str, float]:
    """One run of a side, from an opened run to the end of all of its work.

    The steady rate is that of the time in which all workers had work: from when each of them may
    have finished a shard until the first may have run out; it is missing for few shards.

    Returns:
        ``samples``, ``from``, ``until`` (times), ``first_s`` (until the first shard), ``steady``
        (samples/s).
    """
    run, shards = inspect(load(config, [f"output={output}"]))
    started = time.time()
    finished = sorted(SIDES[side](run, shards, workers))
    figures = {
        "samples": sum(count for _, count in finished),
        "from": started,
        "until": time.time(),
        "first_s": finished[0][0] - started,
    }
    if len(finished) > FEW * workers:
        first, last = finished[workers - 1][0], finished[-workers][0]
        counted = sum(count for when, count in finished if first < when <= last)
        figures["steady"] = counted / (last - first)
    return figures
