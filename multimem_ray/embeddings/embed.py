"""The command ``multimem embed``: every shard that is not embedded yet, over a pool of actors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from multimem_ray.distributed.executor import Executor, Row
from multimem_ray.embeddings.log import EmbeddingLog, write_manifest, write_membership
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.pipeline import (
    Totals,
    record_missing,
    require_models,
    run_rows,
    shard_rows,
)
from multimem_ray.store.names import shard_id


def embed(
    run: Run,
    shards: Shards,
    progress: Progress,
    executor: Executor,
    *,
    retry_errors: bool = False,
) -> Totals:
    """Embed every sample, held out or not, under every model, within a session of the executor.

    Args:
        retry_errors: Embed shards again in which something failed before.

    Raises:
        ModelError: A reference model is not trained yet.
    """
    log = EmbeddingLog(run)
    record_missing(log, shards.missing)
    every = (*shards.scored, *shards.held_out)
    done, todo = log.split(every)
    if retry_errors:
        by_id = {shard_id(shard.url): shard for shard in every}
        todo += [(by_id[commit.shard_id], [commit.url]) for commit in done if commit.errors]
        done = [commit for commit in done if not commit.errors]
    fresh = len(todo)
    if todo:
        require_models(run)
        write_membership(run)
        progress.say(f"embedding {len(todo)} shards" + (f", {len(done)} before" if done else ""))
        pool = executor.pool(run.config.resources.score, len(todo), progress)
        rows, before = shard_rows(log, todo), Totals.of(done)
        run_rows(run, rows, pool, progress, executor, before, partial(_embedder, run), name="embed")
        done, left = log.split(every)
        if left:
            raise RuntimeError(f"{len(left)} shards were embedded and are not committed: {left[0]}")
        log.clear_orphans(done)
    log.clear_parts()
    write_manifest(run, len(every))
    return Totals.of(done, fresh)


def _embedder(run: Run) -> Callable[[Row], Row]:
    from multimem_ray.embeddings.actor import ShardEmbedder

    return ShardEmbedder(run)
