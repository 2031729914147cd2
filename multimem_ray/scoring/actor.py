"""The scoring actor: the whole bank in one process, and a row of work at a time.

A row is a shard of which held-out samples are embedded, or a shard to be scored; what goes back is
a receipt. The class knows nothing of Ray but whether it had to be started again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from multimem_ray.distributed.metrics import Monitor, gpu_memory
from multimem_ray.distributed.session import was_restarted
from multimem_ray.run import Run
from multimem_ray.scoring.bank import ScoringBank, pick_device
from multimem_ray.scoring.chunks import PART_POSITIONS
from multimem_ray.scoring.held_out import HeldOutMeans
from multimem_ray.scoring.held_out_plan import Chosen
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.memory import give_back
from multimem_ray.scoring.output import SCORES, Output
from multimem_ray.scoring.poison import careful_parts
from multimem_ray.scoring.retry import parts_of_commit
from multimem_ray.scoring.shard import ScoredShard, assembled, score_chunk, score_shard
from multimem_ray.scoring.wire import unpack
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import CommitLog, Receipt, commit_log
from multimem_ray.store.parts import PartFolder

CAREFUL_SHARDS = 3
"""Shards after a restart that are gone through with care: Ray hands out a few ahead."""


class ShardScorer:
    """Scores shards and commits them.

    Args:
        run: The run; its models must be done.
        restarted: Whether an earlier process of this actor died.
        product: What is made of the samples.
        log: Where it is committed; default: the run's scores.
    """

    def __init__(
        self,
        run: Run,
        restarted: bool | None = None,
        product: Output = SCORES,
        log: CommitLog | None = None,
    ) -> None:
        self._run, self._log, self._product = run, log or commit_log(run), product
        self._bank = _bank(run)
        # Beside a GPU, an actor's cores decode; without one, the towers compute on them.
        resources = run.config.resources.score
        self._decoders = resources.cpus if pick_device(resources.gpus).type == "cuda" else 1
        self._monitor = Monitor(run.output)
        died = was_restarted() if restarted is None else restarted
        self._held_out = HeldOutMeans(run, self._bank, careful=died)
        self._careful = CAREFUL_SHARDS if died else 0

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one row of work; see :mod:`multimem_ray.scoring.pipeline` for the columns."""
        if row["kind"] == "held_out":
            return _embed_held_out(self._held_out, row)
        shard = FileInfo(row["url"], row["size"], row["version"])
        receipt = self._log.receipt(shard) if self._careful else None
        if receipt is None:
            receipt = self._score(shard, row)
        return {"kind": "shard", **asdict(receipt)}

    def _score(self, shard: FileInfo, row: dict[str, Any]) -> Receipt:
        names: list[str] = json.loads(row["names"])
        folder = self._log.parts(shard)
        if row["retry"]:
            folder.remove()
            for part in parts_of_commit(self._log, shard, row["retry"]):
                folder.write(part)
            names = folder.names()
        scored = self._scored(shard, folder, names)
        stale = json.loads(row["stale"])
        self._log.commit(shard, scored.receipt, scored.scores, scored.errors, stale)
        self._monitor.samples("score", scored.receipt.rows)
        self._monitor.commit(scored.receipt.errors)
        self._monitor.memory("score", gpu_memory())
        if names or self._careful or scored.receipt.samples > PART_POSITIONS:
            folder.remove()
        self._careful = max(0, self._careful - 1)
        give_back()
        return scored.receipt

    def _scored(self, shard: FileInfo, folder: PartFolder, names: Sequence[str]) -> ScoredShard:
        run, bank, product = self._run, self._bank, self._product
        held_out = self.statistics()
        if self._careful:
            started = time.monotonic()
            parts = careful_parts(run, bank, held_out, shard, folder, product)
            return assembled(run, shard, parts, time.monotonic() - started, product)
        known = folder.read(names) if names else []
        return score_shard(
            run, bank, held_out, shard, folder, known, self._monitor, product, self._decoders
        )

    def statistics(self) -> HeldOutStatistics:
        """What scoring needs of the held-out set; waits until it is there."""
        return self._held_out.statistics()


class ChunkScorer:
    """Scores chunks that were decoded elsewhere, and keeps each as a part of its shard.

    Args:
        run: The run; its models must be done.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._log = run, commit_log(run)
        self._bank = _bank(run)
        self._held_out = HeldOutMeans(run, self._bank, careful=was_restarted())

    def held_out(self, row: dict[str, Any]) -> dict[str, Any]:
        """Embed held-out samples, which this actor decodes itself."""
        return _embed_held_out(self._held_out, row)

    def chunk(self, row: dict[str, Any]) -> tuple[str, int]:
        """Name of the part that came of a chunk, and how many positions it covers."""
        shard = FileInfo(row["url"], row["size"], row["version"])
        held_out = self._held_out.statistics()
        part = score_chunk(self._run, self._bank, held_out, shard.url, unpack(row))
        return self._log.parts(shard).write(part), part.end - part.first


def _bank(run: Run) -> ScoringBank:
    resources = run.config.resources.score
    device = pick_device(resources.gpus)
    if device.type == "cpu":
        torch.set_num_threads(resources.cpus)
    return ScoringBank(run, device)


def _embed_held_out(held_out: HeldOutMeans, row: dict[str, Any]) -> dict[str, Any]:
    keys = tuple(json.loads(row["names"]))
    held_out.embed(Chosen(row["url"], keys))
    return {"kind": "held_out", **asdict(Receipt(row["url"], 0, len(keys), 0, 0.0))}
