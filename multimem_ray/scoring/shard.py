"""One shard: read → decode → views → bank → consistency → rows and failures.

``decoded_chunks`` and ``ScoringBank.agreements`` are functions of their arguments alone, so where
they run (in one actor, or the one on CPU nodes and the other on GPUs) changes no number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from torch import Tensor

from multimem_ray.errors import SampleError
from multimem_ray.modalities.base import Array
from multimem_ray.prefetch import ahead
from multimem_ray.run import Run
from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.bank import ScoringBank, Views, make_views
from multimem_ray.scoring.commits import Receipt
from multimem_ray.scoring.rows import Identity, error_rows, score_rows, score_schema
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo


@dataclass
class Tally:
    """Accounts for every sample of a shard while it is read."""

    read: int = 0
    held_out: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Chunk:
    """Up to ``scoring.batch_size`` decoded samples with their views."""

    who: Identity
    views: Views


@dataclass(frozen=True)
class ScoredShard:
    """What came of a shard, ready to be committed."""

    receipt: Receipt
    scores: pa.Table
    errors: pa.Table


def score_shard(run: Run, bank: ScoringBank, means: Tensor, shard: FileInfo) -> ScoredShard:
    """Score every sample of a shard that is not held out.

    Args:
        means: (M, n, d), held-out mean vectors.

    Raises:
        RuntimeError: The sums don't agree; a defect, never the data.
    """
    started = time.monotonic()
    tally = Tally()
    tables = [score_schema(run).empty_table()]
    for chunk in ahead(decoded_chunks(run, shard, tally), 2):
        found = bank.agreements(chunk.views, means)
        tables.append(score_rows(run, shard.url, chunk.who, chunk.views.present, found))
    scores = pa.concat_tables(tables).combine_chunks()
    if scores.num_rows + tally.held_out + len(tally.failures) != tally.read:
        raise RuntimeError(
            f"{shard.url}: {tally.read} read, but {scores.num_rows} scored, {tally.held_out} held "
            f"out and {len(tally.failures)} failed"
        )
    receipt = Receipt(
        shard=shard.url,
        rows=scores.num_rows,
        held_out=tally.held_out,
        errors=len(tally.failures),
        seconds=time.monotonic() - started,
    )
    return ScoredShard(receipt, scores, error_rows(tally.failures))


def decoded_chunks(run: Run, shard: FileInfo, tally: Tally) -> Iterator[Chunk]:
    """Samples to be scored, decoded and seen from ``scoring.views`` sides, chunk by chunk."""
    pending: list[tuple[Sample, str, str | None, dict[str, Array]]] = []
    for item in read_shard(shard.url, run.storage):
        tally.read += 1
        if isinstance(item, Failure):
            tally.failures.append(item)
            continue
        try:
            group = run.group(item)
            if run.held_out_rule.is_held_out([group], shard.url)[0]:
                tally.held_out += 1
                continue
            pending.append((item, group, run.label_of(item), run.decoder.decode(item)))
        except SampleError as error:
            tally.failures.append(as_failure(item, error))
            continue
        if len(pending) == run.config.scoring.batch_size:
            yield _chunk(run, pending)
            pending = []
    if pending:
        yield _chunk(run, pending)


def as_failure(sample: Sample, error: SampleError) -> Failure:
    """The row of ``errors/`` for a sample that could not be used."""
    return Failure(sample.shard, sample.key, sample.index, error.stage, error.kind, error.reason)


def _chunk(run: Run, pending: list[tuple[Sample, str, str | None, dict[str, Array]]]) -> Chunk:
    samples, groups, labels, decoded = (list(column) for column in zip(*pending, strict=True))
    who = Identity([s.key for s in samples], [s.index for s in samples], labels, groups)
    return Chunk(who, make_views(run, who.keys, decoded))
