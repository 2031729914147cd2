"""An audit in this very process: the same code and the same folder as on a cluster, without Ray.

For data that train in seconds, where starting Ray would take most of the time: trials over many
conditions and seeds. All models of a run train in one bank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from multimem_ray.audit import write_summary
from multimem_ray.config import Config, digest
from multimem_ray.distributed.counter import NullCounter
from multimem_ray.distributed.metrics import Monitor
from multimem_ray.evaluation.evaluate import evaluate
from multimem_ray.mitigation.prepare import prepare_references
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.held_out import HeldOutMeans
from multimem_ray.scoring.held_out_plan import plan_held_out
from multimem_ray.scoring.shard import score_shard
from multimem_ray.setup import open_run
from multimem_ray.store.commits import commit_log
from multimem_ray.training.worker import BankTask, train_here


def audit_here(config: Config, progress: Progress, threads: int = 2) -> Run:
    """Train, score, summarize and evaluate what is not done yet.

    Args:
        config: The run.
        progress: What is told meanwhile.
        threads: Models that step at the same time.

    Returns:
        The run; its folder holds scores, ``summary.json`` and ``evaluation.json``.

    Raises:
        MultiMemError: See the stages.
    """
    run, shards = open_run(config)
    plan_held_out(run, shards, progress)
    prepare_references(run, progress)
    ids = [m for m in run.design.model_ids() if not run.is_trained(m)]
    if ids:
        task = BankTask(run, ids, threads, threads, NullCounter())
        trained_on = [shard for shard in shards.scored if run.trains_on(shard.url)]
        train_here(task, trained_on, silent_monitor(), _cache(run))
    _score(run, shards)
    if not run.storage.exists(run.path("summary.json")):
        write_summary(run.config, progress)
    if not run.storage.exists(run.path("evaluation.json")):
        evaluate(run, progress)
    return run


def silent_monitor() -> Monitor:
    """A monitor that nobody reads."""
    return Monitor("", lambda *_: _Nothing(), lambda *_: _Nothing())


class _Nothing:
    """Stands for any metric."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _score(run: Run, shards: Shards) -> None:
    log = commit_log(run)
    _, todo = log.split(shards.scored)
    if not todo:
        return
    bank = ScoringBank(run, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    held_out = HeldOutMeans(run, bank)
    for chosen in plan_held_out(run, shards, _quiet()):
        held_out.embed(chosen)
    statistics = held_out.statistics()
    for shard, stale in todo:
        made = score_shard(run, bank, statistics, shard)
        log.commit(shard, made.receipt, made.scores, made.errors, stale)
    log.clear_parts()


def _quiet() -> Progress:
    from rich.console import Console

    return Progress(Console(quiet=True))


def _cache(run: Run) -> Path:
    """Decoded samples depend on the data alone: runs of other recipes find them there."""
    config = run.config
    parts = [
        dict(run.fields),
        run.shard_set,
        config.modalities,
        config.held_out.model_dump(mode="json"),
        config.design.model_dump(mode="json"),
    ]
    return Path(config.resources.cache_dir).expanduser() / f"here-{digest(parts)}"
