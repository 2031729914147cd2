"""Scoring a run: shards over the actors of an executor, one commit per shard, receipts back.

The driver hands out rows of work and gets receipts; it holds no sample, score or model. A row:

    kind       "held_out": embed the held-out samples with the keys ``names``
               "shard": score and commit it
    url, size, version      the shard
    names      keys; or, for a shard, names of parts that an earlier attempt left
    stale      markers that the commit replaces
    retry      the marker of the commit whose failures are tried again, or ""
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from multimem_ray.distributed.executor import Executor, Pool, Row
from multimem_ray.errors import ModelError
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Failure
from multimem_ray.scoring.held_out_plan import Chosen, plan_held_out
from multimem_ray.scoring.source import Actor, Source
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import CommitLog, commit_log
from multimem_ray.store.markers import Commit
from multimem_ray.store.names import shard_id
from multimem_ray.store.schema import error_rows

logger = logging.getLogger(__name__)

Todo = tuple[FileInfo, list[str]]


@dataclass(frozen=True)
class Totals:
    """Sums over all committed shards of a run; ``fresh`` of them were scored just now."""

    shards: int
    rows: int
    held_out: int
    errors: int
    fresh: int = 0

    @classmethod
    def of(cls, commits: Sequence[Commit], fresh: int = 0) -> Totals:
        return cls(
            len(commits),
            sum(c.rows for c in commits),
            sum(c.held_out for c in commits),
            sum(c.errors for c in commits),
            fresh,
        )


@dataclass(frozen=True)
class Pending:
    """What is committed of a run, and what is left to do.

    Args:
        done: Commits that stand.
        todo: Shards without one, each with what is stored of it by mistake.
        failed: Commits of which the failures are to be tried again.
    """

    done: list[Commit]
    todo: list[Todo]
    failed: list[Commit]

    @property
    def shards(self) -> int:
        """Number of shards that are to be scored now."""
        return len(self.todo) + len(self.failed)


def pending(run: Run, shards: Shards, *, retry_errors: bool = False) -> Pending:
    """What is left to do, from one listing of the commits; needs no Ray.

    Args:
        retry_errors: Also try again what failed in committed shards.
    """
    done, todo = commit_log(run).split(shards.scored)
    return Pending(done, todo, [commit for commit in done if commit.errors and retry_errors])


def score(
    run: Run,
    shards: Shards,
    progress: Progress,
    source: Source,
    executor: Executor,
    left: Pending | None = None,
) -> Totals:
    """Score every shard that is not committed yet, within a session of the executor.

    Args:
        source: Where the samples come from.
        left: What :func:`pending` returned.

    Raises:
        ModelError: A reference model is not trained yet.
        HeldOutError: The held-out set cannot serve.
    """
    log, left = commit_log(run), left or pending(run, shards)
    record_missing(log, shards.missing)
    done, todo, failed, fresh = left.done, left.todo, left.failed, left.shards
    if fresh:
        require_models(run)
        source.prepare(progress, executor)
        pool = executor.pool(run.config.resources.score, fresh, progress)
        chosen = plan_held_out(run, shards, progress, source, executor)
        if failed:
            progress.say(f"trying {sum(c.errors for c in failed)} failures again")
        if todo:
            before = f", {len(done)} done before" if done else ""
            progress.say(f"scoring {len(todo)} shards{before}")
        rows = [*_held_out_rows(chosen), *shard_rows(log, todo), *_retry_rows(shards, failed)]
        again = {commit.url for commit in failed}
        rest = Totals.of([commit for commit in done if commit.url not in again])
        make, splits = source.scorer, source.splits
        run_rows(run, rows, pool, progress, executor, rest, make, splits=splits)
        done, todo = log.split(shards.scored)
        if todo:
            raise RuntimeError(f"{len(todo)} shards were scored and are not committed: {todo[0]}")
        log.clear_orphans(done)
    log.clear_parts()
    source.clear()
    return Totals.of(done, fresh)


def _held_out_rows(chosen: Sequence[Chosen]) -> list[Row]:
    return [_row("held_out", FileInfo(item.shard, 0, ""), list(item.keys)) for item in chosen]


def shard_rows(log: CommitLog, todo: Sequence[Todo]) -> list[Row]:
    """Rows of work for shards to be committed."""
    known = log.known_parts()
    return [
        _row("shard", shard, known.get(log.parts(shard).url, []), stale) for shard, stale in todo
    ]


def _retry_rows(shards: Shards, failed: Sequence[Commit]) -> list[Row]:
    by_id = {shard_id(shard.url): shard for shard in shards.scored}
    return [_row("shard", by_id[c.shard_id], [], [c.url], c.url) for c in failed]


def _row(
    kind: str, shard: FileInfo, names: list[str], stale: Sequence[str] = (), retry: str = ""
) -> Row:
    # Lists as JSON: of an empty one, Arrow could not tell what it is a list of.
    return {
        "kind": kind,
        "url": shard.url,
        "size": shard.size,
        "version": shard.version,
        "names": json.dumps(names),
        "stale": json.dumps(list(stale)),
        "retry": retry,
    }


def run_rows(
    run: Run,
    rows: list[Row],
    pool: Pool,
    progress: Progress,
    executor: Executor,
    before: Totals,
    make: Callable[[], Callable[[Row], Row]],
    *,
    splits: bool = False,
    name: str = "score",
) -> None:
    """Do rows of work over the actors of an executor.

    Args:
        before: What was done before.
        make: Called in each actor for what does the rows there.
        splits: Scores may be made by two fleets, where nodes ask for it.
        name: Of the task, for the terminal.
    """
    shards = sum(row["kind"] == "shard" for row in rows)
    total = shards + before.shards
    receipts = _receipts(run, rows, pool, executor, make, splits)
    with progress.task(name, total, unit="shards", done=before.shards) as shown:
        finished, samples, held_out = before.shards, before.rows, len(rows) - shards
        for receipt in receipts:
            if receipt["kind"] == "held_out":
                held_out -= 1
                shown.update(finished, f"held-out set: {held_out} shards left")
                continue
            finished += 1
            samples += receipt["rows"]
            shown.update(finished, f"{samples} samples")


def _receipts(
    run: Run,
    rows: list[Row],
    pool: Pool,
    executor: Executor,
    make: Callable[[], Callable[[Row], Row]],
    splits: bool,
) -> Iterator[Row]:
    # What is tried again needs the whole shard, and whatever failed before may fail harder now.
    apart = splits and not any(row["retry"] for row in rows)
    resources = run.config.resources.score

    def fused(rows: list[Row]) -> Iterator[Row]:
        return executor.actors(Actor, (make,), rows, pool, resources)

    if apart and executor.distributed:
        from multimem_ray.scoring.disaggregated import split_receipts, wants_split

        if wants_split(resources, executor.nodes()):
            return split_receipts(run, rows, pool, fused)
    return fused(rows)


def require_models(run: Run) -> None:
    """Raise ModelError unless every reference model is trained."""
    absent = [m for m in run.design.model_ids() if not run.is_trained(m)]
    if absent:
        raise ModelError(
            f"{run.output}: reference models {', '.join(absent)} are not trained yet; run "
            "`multimem train` or `multimem audit`"
        )


def record_missing(log: CommitLog, missing: Sequence[str]) -> None:
    """Write down shards that are named and not there."""
    for url in missing:
        failure = Failure(
            url,
            None,
            None,
            "read",
            "missing_shard",
            "named in data.shards, but not there; upload it and run again, or leave it out",
        )
        log.write_missing(url, error_rows([failure]))
