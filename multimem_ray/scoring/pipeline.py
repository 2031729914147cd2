"""Scoring a run: shards over a pool of actors, one commit per shard, receipts to the driver."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy
from torch import Tensor

from multimem_ray.errors import ModelError
from multimem_ray.progress import Progress
from multimem_ray.ray_session import cluster_cpus, cluster_gpus, data_context
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Failure
from multimem_ray.scoring.bank import ScoringBank, pick_device
from multimem_ray.scoring.commits import Commit, CommitLog
from multimem_ray.scoring.held_out import held_out_means
from multimem_ray.scoring.rows import error_rows
from multimem_ray.scoring.shard import score_shard
from multimem_ray.storage import FileInfo

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Totals:
    """Sums over all committed shards of a run."""

    shards: int
    rows: int
    held_out: int
    errors: int

    @classmethod
    def of(cls, commits: Sequence[Commit]) -> Totals:
        return cls(
            len(commits),
            sum(c.rows for c in commits),
            sum(c.held_out for c in commits),
            sum(c.errors for c in commits),
        )


def commit_log(run: Run) -> CommitLog:
    """The commit log of a run."""
    return CommitLog(run.storage, run.output, run.fingerprint, run.config.scoring.partitions)


def score(run: Run, shards: Shards, progress: Progress) -> Totals:
    """Score every shard that is not committed yet; Ray must be running.

    Raises:
        ModelError: A reference model is not trained yet.
        HeldOutError: The held-out set cannot serve.
    """
    log = commit_log(run)
    _record_missing(log, shards.missing)
    done, todo = log.split(shards.scored)
    if todo:
        _require_models(run)
        pool = actor_pool(run, len(todo))
        means = held_out_means(run, shards, pool[1], progress)
        progress.say(f"scoring {len(todo)} shards" + (f", {len(done)} done before" if done else ""))
        _run_pipeline(run, todo, means, pool, progress, Totals.of(done))
        done, todo = log.split(shards.scored)
        if todo:
            raise RuntimeError(f"{len(todo)} shards were scored and are not committed: {todo[0]}")
    return Totals.of(done)


def actor_pool(run: Run, shards: int) -> tuple[int, int]:
    """Least and most actors, from the config or what the cluster has room for now."""
    wanted = run.config.resources.score
    if isinstance(wanted.actors, tuple):
        return wanted.actors
    if wanted.actors != "auto":
        return wanted.actors, wanted.actors
    room = cluster_gpus() / wanted.gpus if wanted.gpus else cluster_cpus() / wanted.cpus
    size = max(1, min(int(room), shards))
    return size, size


def _run_pipeline(
    run: Run,
    todo: Sequence[tuple[FileInfo, list[str]]],
    means: Tensor,
    pool: tuple[int, int],
    progress: Progress,
    before: Totals,
) -> None:
    score_resources = run.config.resources.score
    least, most = pool
    rows = [
        {"url": s.url, "size": s.size, "version": s.version, "stale": "\n".join(stale)}
        for s, stale in todo
    ]
    with data_context():
        receipts = ray.data.from_items(rows, override_num_blocks=min(len(rows), 10_000)).map(
            ShardScorer,  # type: ignore[arg-type]
            fn_constructor_args=(run, means),
            # At full size from the start: a pool that grows step by step wastes minutes.
            compute=ActorPoolStrategy(
                min_size=least, max_size=most, initial_size=min(most, max(least, len(rows)))
            ),
            num_cpus=0 if score_resources.gpus else score_resources.cpus,
            num_gpus=score_resources.gpus or None,
            ray_remote_args_fn=_retries,
        )
    total = len(todo) + before.shards
    with progress.task("score", total, unit="shards", done=before.shards) as shown:
        finished, samples = before.shards, before.rows
        for receipt in receipts.iter_rows():
            finished += 1
            samples += receipt["rows"]
            shown.update(finished, f"{samples} samples")


def _retries() -> dict[str, Any]:
    """A bounded number of attempts: without it, Ray Data would retry for ever."""
    return {"max_restarts": 4, "max_task_retries": 2}


class ShardScorer:
    """An actor with the whole bank; one row in is one shard, one row out its receipt."""

    def __init__(self, run: Run, means: Tensor) -> None:
        self._run, self._means, self._log = run, means, commit_log(run)
        resources = run.config.resources.score
        device = pick_device(resources.gpus)
        if device.type == "cpu":
            torch.set_num_threads(resources.cpus)
        self._bank = ScoringBank(run, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = FileInfo(row["url"], row["size"], row["version"])
        scored = score_shard(self._run, self._bank, self._means, shard)
        stale = row["stale"].split("\n") if row["stale"] else []
        self._log.commit(shard, scored.receipt, scored.scores, scored.errors, stale)
        return asdict(scored.receipt)


def _require_models(run: Run) -> None:
    absent = [m for m in run.design.model_ids() if not run.model_folder(m).is_done()]
    if absent:
        raise ModelError(
            f"{run.output}: reference models {', '.join(absent)} are not trained yet; run "
            "`multimem train` or `multimem audit`"
        )


def _record_missing(log: CommitLog, missing: Sequence[str]) -> None:
    for url in missing:
        failure = Failure(
            url,
            None,
            None,
            "read",
            "missing_shard",
            "named in data.shards, but not there; upload it and run again, or leave it out",
        )
        log.write_errors(url, error_rows([failure]))
