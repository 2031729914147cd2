"""One shard: read → decode → views → bank → rows and failures, whatever the rows are.

An :class:`Output` says what is made of decoded samples: their scores, their embeddings
(:mod:`multimem_ray.embeddings.export`), or what the means of the held-out set are taken of
(:mod:`multimem_ray.scoring.held_out`). Reading, parts, the search for a sample that fails and
commits are the same for all. Chunks and parts are functions of their arguments alone, so where they
are made (in one actor, or the one on CPU nodes and the other on GPUs) changes no number.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Generic

import pyarrow as pa

from multimem_ray.distributed.metrics import Monitor
from multimem_ray.errors import SampleError
from multimem_ray.modalities.batch import DecodedBatch
from multimem_ray.prefetch import ahead
from multimem_ray.run import Run
from multimem_ray.sample import Failure
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.chunks import PART_POSITIONS, Chunk, ChunkReader
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import Identity, schema_of, score_rows
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import Receipt
from multimem_ray.store.parts import Part, PartFolder, R, joined
from multimem_ray.store.schema import error_rows

logger = logging.getLogger(__name__)

MODEL_ERROR = "model_error"


@dataclass(frozen=True)
class ScoringBatch:
    """B samples of a shard."""

    shard: str
    who: Identity
    decoded: DecodedBatch

    def __iter__(self) -> Iterator[ScoringBatch]:
        """Each of the samples alone."""
        for row in range(len(self.who.keys)):
            yield ScoringBatch(self.shard, self.who.at(row), self.decoded.at(row))


class Output(ABC, Generic[R]):
    """Makes a row of each sample.

    Args:
        reader: Gives the decoded chunks.
    """

    blames_one_of_one: ClassVar[bool] = False
    """Whether a batch of one that fails is its sample's fault, not that of the models."""

    def __init__(self, reader: ChunkReader) -> None:
        self.reader = reader

    @abstractmethod
    def rows(self, batch: ScoringBatch) -> R:
        """One row for each of the samples; may raise whatever a model raises."""

    @abstractmethod
    def joined(self, rows: Sequence[R]) -> R:
        """Rows one after the other; no rows of nothing."""


class TableOutput(Output[pa.Table]):
    """An output of table rows.

    Args:
        schema: Columns of the rows.
    """

    def __init__(self, reader: ChunkReader, schema: pa.Schema) -> None:
        super().__init__(reader)
        self.schema = schema

    def joined(self, rows: Sequence[pa.Table]) -> pa.Table:
        return joined_tables(self.schema, rows)


class Scores(TableOutput):
    """MultiMem and all that belongs to it; see :mod:`multimem_ray.scoring.rows`.

    Args:
        held_out: Mean vectors of the held-out set, and with a target its levels.
    """

    def __init__(self, run: Run, bank: ScoringBank, held_out: HeldOutStatistics) -> None:
        super().__init__(ChunkReader(run), schema_of(run))
        self._run, self._bank, self._held_out = run, bank, held_out

    def rows(self, batch: ScoringBatch) -> pa.Table:
        agreements = self._bank.agreements(batch.decoded, self._held_out.means)
        present, held_out = batch.decoded.present(self._run.modalities), self._held_out
        of_held_out = held_out.levels, held_out.population
        return score_rows(self._run, batch.shard, batch.who, present, agreements, *of_held_out)


def joined_tables(schema: pa.Schema, tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of that schema one after the other."""
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()


@dataclass(frozen=True)
class ScoredShard:
    """What came of a shard, ready to be committed."""

    receipt: Receipt
    scores: pa.Table
    errors: pa.Table


def score_shard(output: TableOutput, shard: FileInfo) -> ScoredShard:
    """The rows of a shard that nobody has begun.

    Raises:
        RuntimeError: The sums don't agree; a defect, never the data.
    """
    started = time.monotonic()
    parts = shard_parts(output, shard.url)
    return assembled(output.schema, shard, parts, time.monotonic() - started)


def shard_parts(
    output: Output[R],
    shard: str,
    folder: PartFolder[R] | None = None,
    known: Sequence[Part[R]] = (),
    monitor: Monitor | None = None,
    decoders: int = 1,
) -> list[Part[R]]:
    """What becomes of every position of a shard.

    Args:
        folder: Where parts of a large shard are kept meanwhile; None = nowhere.
        known: Parts from an earlier attempt, ascending.
        monitor: Counts the time of decoding and of embedding.
        decoders: Threads that decode, ahead of the embedding.
    """
    parts, fresh = list(known), list[Part[R]]()
    chunks = output.reader.chunks(shard, [(part.first, part.end) for part in known], decoders)
    timed = monitor.timed("decode", chunks) if monitor else chunks
    # After an error, nothing goes on being decoded.
    with closing(chunks), closing(ahead(timed, 2)) as coming:
        for chunk in coming:
            if fresh and fresh[-1].end != chunk.first:
                parts += fresh
                fresh = []
            if fresh and chunk.first % PART_POSITIONS == 0:
                whole = joined(fresh, output.joined)
                if folder is not None:
                    folder.write(whole)
                parts, fresh = [*parts, whole], []
            with monitor.timing("embed") if monitor else nullcontext():
                fresh.append(part_of(output, chunk))
    return [*parts, *fresh]


def part_of(output: Output[R], chunk: Chunk) -> Part[R]:
    """What became of a chunk's samples.

    A sample on which the models raise an error becomes a failure; an error that all samples of a
    batch raise is no sample's fault, and goes on, unless it is one of samples (SampleError).
    """
    rows, failures = output.joined([]), chunk.failures
    if chunk.decoded is not None:
        batch = ScoringBatch(chunk.shard, chunk.who, chunk.decoded)
        try:
            rows = output.rows(batch)
        except Exception as error:
            logger.warning("%s: a batch failed, trying its samples alone: %s", chunk.shard, error)
            rows, failed = _one_by_one(output, batch)
            alone = len(failed) == 1 and output.blames_one_of_one
            of_models = sum(one.error == MODEL_ERROR for one in failed)
            if of_models == len(chunk.who.keys) and not alone:
                raise
            failures = [*failures, *failed]
    return Part(chunk.first, chunk.end, rows, chunk.held_out, failures)


def _one_by_one(output: Output[R], batch: ScoringBatch) -> tuple[R, list[Failure]]:
    rows, failed = list[R](), list[Failure]()
    for one, key, index in zip(batch, batch.who.keys, batch.who.indices, strict=True):
        try:
            rows.append(output.rows(one))
        except SampleError as error:
            failed.append(Failure(batch.shard, key, index, error.stage, error.kind, error.reason))
        except Exception as error:  # noqa: BLE001 - towers may raise anything; it is recorded
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            detail = f"the models fail on it: {said}"
            failed.append(Failure(batch.shard, key, index, "score", MODEL_ERROR, detail))
    return output.joined(rows), failed


def assembled(
    schema: pa.Schema, shard: FileInfo, parts: Sequence[Part[pa.Table]], seconds: float
) -> ScoredShard:
    """A shard from all of its parts."""
    ordered = sorted(parts, key=lambda part: part.first)
    whole = joined(ordered, partial(joined_tables, schema))
    if whole.first != 0:
        raise RuntimeError(f"{shard.url}: positions before {whole.first} were not scored")
    rows, errors = whole.rows.num_rows, len(whole.failures)
    receipt = Receipt(shard.url, rows, whole.held_out, errors, seconds)
    return ScoredShard(receipt, whole.rows, error_rows(whole.failures))
