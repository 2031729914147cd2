"""The scoring actors: a row of work in, a receipt out.

A row is a shard of which held-out samples are embedded, or a shard to be scored; see
:mod:`multimem_ray.scoring.pipeline` for its columns. The classes know nothing of Ray but their
name, and whether they had to be started again.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from dataclasses import asdict

import torch

from multimem_ray.config import Config
from multimem_ray.distributed.executor import Row
from multimem_ray.distributed.memory import trim_heap
from multimem_ray.distributed.metrics import Monitor, gpu_memory
from multimem_ray.distributed.session import actor_id, was_restarted
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank, pick_device
from multimem_ray.scoring.chunks import PART_POSITIONS, Chunk
from multimem_ray.scoring.held_out import HeldOut, HeldOutOfShards
from multimem_ray.scoring.held_out_plan import Chosen
from multimem_ray.scoring.poison import isolated_parts
from multimem_ray.scoring.retry import parts_of_commit
from multimem_ray.scoring.shard import (
    ScoredShard,
    Scores,
    TableOutput,
    assembled,
    part_of,
    shard_parts,
)
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import CommitLog, Receipt, commit_log

CAREFUL_SHARDS = 3
"""Shards after a restart of which samples are isolated: Ray hands out a few ahead."""


class Scorer(ABC):
    """Does rows of work and commits.

    Args:
        log: Where it is committed.
        held_out: Embeds held-out samples.
        restarted: Whether an earlier process of this actor died.
    """

    def __init__(self, run: Run, log: CommitLog, held_out: HeldOut, *, restarted: bool) -> None:
        self.run, self.log, self.held_out, self.restarted = run, log, held_out, restarted
        self.monitor = Monitor(run.output)

    def __call__(self, row: Row) -> Row:
        """Do one row of work."""
        if row["kind"] == "held_out":
            return embed_held_out(self.held_out, row)
        shard = FileInfo(row["url"], row["size"], row["version"])
        receipt = self._committed(shard, row)
        if receipt is None:
            scored, stale = self.scored(shard, row), json.loads(row["stale"])
            receipt = scored.receipt
            self.log.commit(shard, receipt, scored.scores, scored.errors, stale)
            self.monitor.samples("score", receipt.rows)
            self.monitor.commit(receipt.errors)
            self.tidy(shard, row, receipt)
        return {"kind": "shard", **asdict(receipt)}

    def _committed(self, shard: FileInfo, row: Row) -> Receipt | None:
        """The receipt of what this actor committed just before it died."""
        # A retry is of a commit that stands; once that marker is gone, the retry is done.
        if not self.restarted or (row["retry"] and self.log.storage.exists(row["retry"])):
            return None
        return self.log.receipt(shard)

    @abstractmethod
    def scored(self, shard: FileInfo, row: Row) -> ScoredShard:
        """What comes of a shard."""

    def tidy(self, shard: FileInfo, row: Row, receipt: Receipt) -> None:
        """Give back what was needed until the commit."""
        trim_heap()


class ShardScorer(Scorer):
    """Scores shards with all models in this process.

    Args:
        run: The run; its models must be done.
        restarted: Whether an earlier process of this actor died; default: as Ray says.
        log: Where it is committed; default: the run's scores.
    """

    def __init__(
        self, run: Run, restarted: bool | None = None, log: CommitLog | None = None
    ) -> None:
        self.bank = scoring_bank(run)
        died = was_restarted() if restarted is None else restarted
        held_out = HeldOutOfShards(run, self.bank, careful=died, actor=actor_id())
        super().__init__(run, log or commit_log(run), held_out, restarted=died)
        # Beside a GPU, an actor's cores decode; without one, the towers compute on them.
        self._decoders = decoders(run.config)
        self._careful = CAREFUL_SHARDS if died else 0
        self._output: TableOutput | None = None

    def output(self) -> TableOutput:
        """What is made of the samples."""
        return Scores(self.run, self.bank, self.held_out.statistics())

    def scored(self, shard: FileInfo, row: Row) -> ScoredShard:
        self._output = output = self._output or self.output()
        folder, started = self.log.parts(shard), time.monotonic()
        names: list[str] = json.loads(row["names"])
        if row["retry"]:
            if not self._careful:
                folder.remove()  # but not the notes of who died on this very retry
            for part in parts_of_commit(self.log, shard, row["retry"]):
                folder.write(part)
            names = folder.names()
        if self._careful:
            parts = isolated_parts(output, shard.url, folder)
        else:
            known = folder.read(names) if names else []
            threads = self._decoders
            parts = shard_parts(output, shard.url, folder, known, self.monitor, threads)
        return assembled(output.schema, shard, parts, time.monotonic() - started)

    def tidy(self, shard: FileInfo, row: Row, receipt: Receipt) -> None:
        self.monitor.memory("score", gpu_memory())
        begun_before = row["retry"] or json.loads(row["names"]) or self._careful
        if begun_before or receipt.samples > PART_POSITIONS:
            self.log.parts(shard).discard()
        self._careful = max(0, self._careful - 1)
        self.restarted = self._careful > 0
        super().tidy(shard, row, receipt)


class ChunkScorer:
    """Scores chunks that were decoded elsewhere, and keeps each as a part of its shard.

    Args:
        run: The run; its models must be done.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._log, self._bank = run, commit_log(run), scoring_bank(run)
        self._held_out = HeldOutOfShards(run, self._bank, careful=was_restarted(), actor=actor_id())
        self._output: Scores | None = None

    def __call__(self, row: Row) -> Row:
        """Embed held-out samples, or score a chunk; see :mod:`~.disaggregated` for the columns."""
        part, positions = "", row["positions"]
        receipt = {"kind": row["kind"], **asdict(Receipt(row["url"], 0, 0, 0, 0.0))}
        if row["kind"] == "held_out":
            receipt = embed_held_out(self._held_out, row)
        elif row["kind"] == "chunk":
            part, positions = self._part(row)
        return {**receipt, "url": row["url"], "part": part, "positions": positions}

    def _part(self, row: Row) -> tuple[str, int]:
        """Name of the part that came of a chunk, and how many positions it covers."""
        if self._output is None:
            self._output = Scores(self._run, self._bank, self._held_out.statistics())
        shard = FileInfo(row["url"], row["size"], row["version"])
        part = part_of(self._output, Chunk.from_row(row))
        return self._log.parts(shard).write(part), part.end - part.first


def scoring_bank(run: Run) -> ScoringBank:
    """All models of a run on the device of this actor."""
    resources = run.config.resources.score
    device = pick_device(resources.gpus)
    if device.type == "cpu":
        torch.set_num_threads(resources.cpus)
    return ScoringBank(run, device)


def decoders(config: Config) -> int:
    """Threads that decode in this actor."""
    resources = config.resources.score
    return resources.cpus if pick_device(resources.gpus).type == "cuda" else 1


def embed_held_out(held_out: HeldOut, row: Row) -> Row:
    """Do a row of held-out samples."""
    keys = tuple(json.loads(row["names"]))
    held_out.embed(Chosen(row["url"], keys))
    return {"kind": "held_out", **asdict(Receipt(row["url"], 0, len(keys), 0, 0.0))}
