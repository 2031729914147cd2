"""The stages of an audit, one after the other: train, score, summarize, report.

Every stage does what is missing and nothing else, so running it again resumes it. Ray is started
when there is something for it to do.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

from multimem_ray.config import Config
from multimem_ray.distributed.session import cluster_cpus, cluster_gpus, ray_session
from multimem_ray.planning.timings import OTHER, compare, record
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.setup import open_run, require_shards
from multimem_ray.storage import Storage


def audit(config: Config, progress: Progress, *, retry_errors: bool = False) -> dict[str, Any]:
    """Train the reference models, score every sample, write summary and report.

    Args:
        retry_errors: Also score again what failed before.

    Returns:
        The summary; see :func:`multimem_ray.results.summary.summarize`.

    Raises:
        MultiMemError: See the stages; what was done stays done.
    """
    started = time.monotonic()
    run, shards = announce(config, progress)
    with ExitStack() as stack:
        spent = 0.0 if run.is_stored else _train(run, shards, progress, stack)
        spent += _score(run, shards, progress, stack, retry_errors)
        if spent:
            _record(run, OTHER, started + spent, 1)
    return write_results(config, progress)


def train_only(config: Config, progress: Progress) -> None:
    """Train what is not trained yet."""
    require_shards(config, "train")
    run, shards = announce(config, progress)
    with ExitStack() as stack:
        _train(run, shards, progress, stack)


def score_only(config: Config, progress: Progress, *, retry_errors: bool = False) -> dict[str, Any]:
    """Score what is not scored yet, or failed before; the models must be there."""
    run, shards = announce(config, progress)
    with ExitStack() as stack:
        _score(run, shards, progress, stack, retry_errors)
    return write_summary(config, progress)


def embed_only(config: Config, progress: Progress, *, retry_errors: bool = False) -> str:
    """Write the embeddings of every sample under every model; the models must be there.

    Returns:
        URL of the folder.
    """
    from multimem_ray.embeddings.embed import embed

    require_shards(config, "embed")
    run, shards = announce(config, progress)
    with ray_session(config):
        started = time.monotonic()
        totals = embed(run, shards, progress, retry_errors=retry_errors)
        _record(run, "embed", started, totals.fresh)
    progress.say(
        f"{totals.shards} shards: {totals.rows} samples embedded, {totals.errors} in errors/"
    )
    return run.path("embeddings")


def announce(config: Config, progress: Progress) -> tuple[Run, Shards]:
    """Open the run and say what was found."""
    run, shards = open_run(config)
    size = sum(shard.size for shard in shards.scored)
    where = f", in {config.data.shards}" if config.data.shards else " of stored embeddings"
    progress.say(f"{len(shards.scored)} shards, {in_bytes(size)}{where}")
    for url in shards.missing[:5]:
        progress.say(f"warning: {url} is missing; listed in errors/")
    if len(shards.missing) > 5:
        progress.say(f"warning: {len(shards.missing)} shards are missing in all")
    found = ", ".join(f"{name} ({run.fields[name]})" for name in run.modalities)
    progress.say(f"modalities: {found}" + (f"; label: {run.label}" if run.label else ""))
    return run, shards


def write_summary(config: Config, progress: Progress) -> dict[str, Any]:
    """Summarize the committed scores into ``summary.json``."""
    from multimem_ray.results.reader import ScoreTable
    from multimem_ray.results.summary import summarize

    storage = Storage(config.storage)
    table = ScoreTable(config.output, storage)
    files = len(table.score_files)
    with progress.task("summary", files, unit="files") as shown:
        summary = summarize(
            table, planted=config.data.planted, progress=lambda done, _: shown.update(done)
        )
    summary["plan"] = compare(config.output, storage)
    url = storage.join(config.output, "summary.json")
    storage.write_atomic(url, json.dumps(summary, indent=1).encode())
    return summary


def write_results(config: Config, progress: Progress) -> dict[str, Any]:
    """Summary and report from what is committed."""
    from multimem_ray.report import write_report

    summary = write_summary(config, progress)
    storage = Storage(config.storage)
    progress.say("writing the report")
    url = write_report(
        config.output,
        storage,
        summary=summary,
        top=config.report.top,
        title=config.report.title,
        planted=config.data.planted,
    )
    progress.say(f"report: {url}")
    return summary


def in_bytes(size: float) -> str:
    """A size for a person."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _train(run: Run, shards: Shards, progress: Progress, stack: ExitStack) -> float:
    """Returns the seconds of the stage, 0 if nothing was left to do."""
    if all(run.is_trained(model_id) for model_id in run.design.model_ids()):
        progress.say("reference models: all trained before")
        return 0.0
    from multimem_ray.mitigation.prepare import prepare_references
    from multimem_ray.scoring.held_out_plan import plan_held_out
    from multimem_ray.training.trainer import train

    stack.enter_context(ray_session(run.config))
    # A held-out set that cannot serve must be told before hours of training, not after.
    plan_held_out(run, shards, progress)
    prepare_references(run, progress)
    started = time.monotonic()
    trained = train(run, shards.scored, progress)
    return _record(run, "train", started, len(trained))


def _score(
    run: Run, shards: Shards, progress: Progress, stack: ExitStack, retry_errors: bool
) -> float:
    """Returns the seconds of the stage, 0 if nothing was left to do."""
    from multimem_ray.scoring.pipeline import pending, score

    left = pending(run, shards, retry_errors=retry_errors)
    if left.shards:
        stack.enter_context(ray_session(run.config))
    started = time.monotonic()
    totals = score(run, shards, progress, left)
    spent = _record(run, "score", started, totals.fresh) if left.shards else 0.0
    progress.say(
        f"{totals.shards} shards: {totals.rows} samples scored, {totals.held_out} held out, "
        f"{totals.errors} in errors/"
    )
    return spent


def _record(run: Run, stage: str, started: float, done: int) -> float:
    seconds = time.monotonic() - started
    record(run, stage, seconds, done, cluster_cpus(), cluster_gpus())
    return seconds
