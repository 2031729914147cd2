"""One shard: read → decode → views → bank → consistency → rows and failures.

``decoded_chunks`` and ``score_chunk`` are functions of their arguments alone, so where they run
(in one actor, or the one on CPU nodes and the other on GPUs) changes no number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import pyarrow as pa

from multimem_ray.distributed.metrics import Monitor
from multimem_ray.prefetch import ahead
from multimem_ray.run import Run
from multimem_ray.sample import Failure
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.chunks import PART_POSITIONS, Chunk, decoded_chunks
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.output import SCORES, Output, ScoringBatch
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import Receipt
from multimem_ray.store.parts import Part, PartFolder, joined
from multimem_ray.store.schema import error_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredShard:
    """What came of a shard, ready to be committed."""

    receipt: Receipt
    scores: pa.Table
    errors: pa.Table


def score_shard(
    run: Run,
    bank: ScoringBank,
    held_out: HeldOutStatistics,
    shard: FileInfo,
    folder: PartFolder | None = None,
    known: Sequence[Part] = (),
    monitor: Monitor | None = None,
    product: Output = SCORES,
    decoders: int = 1,
) -> ScoredShard:
    """Score every sample of a shard that is not held out.

    Args:
        held_out: Mean vectors of the held-out set, and with a target its levels.
        product: What is made of them instead of scores.
        folder: Where parts of a large shard are kept while it is scored; None = nowhere.
        known: Parts from an earlier attempt, ascending.
        monitor: Counts the time of decoding and of embedding.
        decoders: Threads that decode, ahead of the embedding.

    Raises:
        RuntimeError: The sums don't agree; a defect, never the data.
    """
    started = time.monotonic()
    parts, fresh = list(known), list[Part]()
    done = [(part.first, part.end) for part in known]
    keep = product.keeps_held_out
    chunks = decoded_chunks(run, shard.url, done, keep_held_out=keep, threads=decoders)
    timed = monitor.timed("decode", chunks) if monitor else chunks
    # After an error, nothing goes on being decoded.
    with closing(chunks), closing(ahead(timed, 2)) as coming:
        for chunk in coming:
            if fresh and fresh[-1].end != chunk.first:
                parts += fresh
                fresh = []
            if fresh and chunk.first % PART_POSITIONS == 0:
                whole = joined(fresh, product.schema(run))
                if folder is not None:
                    folder.write(whole)
                parts, fresh = [*parts, whole], []
            with monitor.timing("embed") if monitor else nullcontext():
                fresh.append(score_chunk(run, bank, held_out, shard.url, chunk, product))
    return assembled(run, shard, [*parts, *fresh], time.monotonic() - started, product)


def score_chunk(
    run: Run,
    bank: ScoringBank,
    held_out: HeldOutStatistics,
    shard: str,
    chunk: Chunk,
    product: Output = SCORES,
) -> Part:
    """What became of a chunk's samples.

    A sample on which the models raise an error becomes a failure; one on which all samples of the
    chunk do is raised, since then it is not the sample's.
    """
    rows, failures = product.schema(run).empty_table(), chunk.failures
    if chunk.views is not None:
        lot = ScoringBatch(run, bank, held_out, shard, chunk.who, chunk.views)
        try:
            rows = product.rows(lot)
        except Exception as error:
            logger.warning("%s: a batch failed, trying its samples one by one: %s", shard, error)
            rows, failed = _one_by_one(lot, product)
            if len(failed) == len(chunk.who.keys):
                raise
            failures = [*failures, *failed]
    return Part(chunk.first, chunk.end, rows, chunk.held_out, failures)


def _one_by_one(lot: ScoringBatch, product: Output) -> tuple[pa.Table, list[Failure]]:
    tables, failed = [product.schema(lot.run).empty_table()], []
    for one, key, index in zip(lot, lot.who.keys, lot.who.indices, strict=True):
        try:
            tables.append(product.rows(one))
        except Exception as error:  # noqa: BLE001 - towers may raise anything; it is recorded
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            detail = f"the models fail on it: {said}"
            failed.append(Failure(lot.shard, key, index, "score", "model_error", detail))
    return pa.concat_tables(tables), failed


def assembled(
    run: Run,
    shard: FileInfo,
    parts: Sequence[Part],
    seconds: float,
    product: Output = SCORES,
) -> ScoredShard:
    """A shard from all of its parts."""
    ordered = sorted(parts, key=lambda part: part.first)
    whole = joined(ordered, product.schema(run))
    if whole.first != 0:
        raise RuntimeError(f"{shard.url}: positions before {whole.first} were not scored")
    receipt = Receipt(
        shard=shard.url,
        rows=whole.rows.num_rows,
        held_out=whole.held_out,
        errors=len(whole.failures),
        seconds=seconds,
    )
    return ScoredShard(receipt, whole.rows, error_rows(whole.failures))
