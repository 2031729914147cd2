"""Two fleets: tasks decode on any node's cores, actors embed where the GPUs are.

A decoding task gives out the chunks of a shard, an actor scores them and keeps each as a part (see
:mod:`multimem_ray.store.parts`), and the driver learns which positions are covered. When they
are all of a shard's, a task joins the parts and commits. The numbers are those of one actor doing
everything, since both call the same functions.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from multimem_ray.config import ScoreResources
from multimem_ray.distributed.executor import Pool, Row, total
from multimem_ray.distributed.on_ray import MOST_BLOCKS, actor_retries, own_error
from multimem_ray.distributed.pool import strategy
from multimem_ray.distributed.session import data_context
from multimem_ray.run import Run
from multimem_ray.scoring.source import Actor
from multimem_ray.storage import FileInfo

logger = logging.getLogger(__name__)

FEW_CORES = 8
"""Cores for each GPU below which GPU nodes are taken not to keep up with decoding."""

_COMMITS_AT_ONCE = 8


def wants_split(resources: ScoreResources, nodes: Sequence[Mapping[str, float]]) -> bool:
    """Whether to decode apart from embedding: by the config, or by what the nodes have.

    Args:
        nodes: Resources of those that live.
    """
    if resources.layout != "auto":
        return resources.layout == "split"
    with_gpu = [node for node in nodes if node.get("GPU", 0)]
    gpus, beside = total(with_gpu, "GPU"), total(with_gpu, "CPU")
    elsewhere = total(nodes, "CPU") - beside
    return bool(resources.gpus and gpus and elsewhere and beside / gpus < FEW_CORES)


def split_receipts(
    run: Run, rows: list[Row], pool: Pool, fused: Callable[[list[Row]], Iterator[Row]]
) -> Iterator[Row]:
    """Score the rows of work (see :mod:`multimem_ray.scoring.pipeline`); yield their receipts.

    Args:
        fused: Does rows by one actor at a time; it goes on should decoding kill more than retries
            can bear.
    """
    done: set[str] = set()
    try:
        for receipt in _receipts(run, rows, pool):
            if receipt["kind"] == "shard":
                done.add(receipt["shard"])
            yield receipt
    except RayError as error:
        own = own_error(error)
        if own is not None:
            raise own from None
        if isinstance(error, RayTaskError):
            raise
        logger.warning("decoding apart from embedding failed, going on in one: %s", error)
        left = [row for row in rows if row["kind"] == "held_out" or row["url"] not in done]
        yield from (r for r in fused(left) if r["kind"] == "shard")


def _receipts(run: Run, rows: list[Row], pool: Pool) -> Iterator[Row]:
    import ray.data

    resources = run.config.resources.score
    with data_context():
        flow = (
            ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
            .flat_map(_Decode(run), num_cpus=1, max_retries=3)
            .map(
                Actor,  # type: ignore[arg-type]
                fn_constructor_args=(partial(_chunk_scorer, run),),
                compute=strategy(pool),
                num_cpus=0 if resources.gpus else resources.cpus,
                num_gpus=resources.gpus or None,
                ray_remote_args_fn=actor_retries,
            )
        )
    work = {row["url"]: row for row in rows if row["kind"] == "shard"}
    commits = _Commits(run)
    covered: dict[str, _Covered] = {}
    for told in flow.iter_rows():
        if told["kind"] == "held_out":
            yield told
            continue
        shard = covered.setdefault(told["url"], _Covered())
        if shard.add(told):
            commits.start(work[told["url"]], shard)
            del covered[told["url"]]
        yield from commits.finished(_COMMITS_AT_ONCE - 1)
    yield from commits.finished(0)


@dataclass
class _Covered:
    """Which positions of a shard are scored."""

    names: set[str] = field(default_factory=set)
    positions: int = 0
    total: int | None = None
    started: float = field(default_factory=time.monotonic)

    def add(self, told: Row) -> bool:
        """Whether the shard is complete with this."""
        if told["kind"] == "end":
            self.total = told["positions"]
        elif told["part"] not in self.names:
            self.names.add(told["part"])
            self.positions += told["positions"]
        return self.positions == self.total


class _Commits:
    """Commits under way, each a small task; the driver sees no row."""

    def __init__(self, run: Run) -> None:
        self._run = ray.put(run)
        self._task = ray.remote(num_cpus=0, max_retries=3)(_commit)
        self._running: list[Any] = []

    def start(self, row: Row, shard: _Covered) -> None:
        seconds = time.monotonic() - shard.started
        self._running.append(self._task.remote(self._run, row, sorted(shard.names), seconds))

    def finished(self, at_most: int) -> Iterator[Row]:
        """Receipts of commits, until no more than so many are under way."""
        while len(self._running) > at_most:
            ready, self._running = ray.wait(self._running)
            yield from ray.get(ready)


def _commit(run: Run, row: Row, names: list[str], seconds: float) -> Row:
    from multimem_ray.scoring.rows import schema_of
    from multimem_ray.scoring.shard import assembled
    from multimem_ray.store.commits import commit_log

    log, shard = commit_log(run), FileInfo(row["url"], row["size"], row["version"])
    folder = log.parts(shard)
    parts = folder.read([*json.loads(row["names"]), *names])
    scored = assembled(schema_of(run), shard, parts, seconds)
    log.commit(shard, scored.receipt, scored.scores, scored.errors, json.loads(row["stale"]))
    folder.discard()
    return {"kind": "shard", **asdict(scored.receipt)}


_NOTHING: Row = {"about": b"", "tensors": b"", "positions": 0}


class _Decode:
    """A row of work to the decoded chunks of its shard, and how many positions those leave."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, row: Row) -> Iterator[Row]:
        from multimem_ray.scoring.chunks import ChunkReader
        from multimem_ray.store.commits import commit_log

        if row["kind"] == "held_out":
            yield {**row, **_NOTHING}
            return
        shard = FileInfo(row["url"], row["size"], row["version"])
        names = json.loads(row["names"])
        known = commit_log(self._run).parts(shard).ranges(names)
        positions = 0
        for chunk in ChunkReader(self._run).chunks(shard.url, known):
            positions += chunk.end - chunk.first
            yield {**row, **_NOTHING, **chunk.to_row(), "kind": "chunk"}
        yield {**row, **_NOTHING, "kind": "end", "positions": positions}


def _chunk_scorer(run: Run) -> Callable[[Row], Row]:
    from multimem_ray.scoring.actor import ChunkScorer

    return ChunkScorer(run)
