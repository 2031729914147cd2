"""The scoring actor of a run on stored embeddings: a row of work at a time, and no model.

A row is a unit of which held-out samples are averaged, or a unit to be scored; what goes back is a
receipt, as from :class:`multimem_ray.scoring.actor.ShardScorer`.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import torch

from multimem_ray.distributed.metrics import Monitor
from multimem_ray.distributed.session import was_restarted
from multimem_ray.embeddings.held_out import StoredHeldOut
from multimem_ray.embeddings.score import UnitReader, score_unit
from multimem_ray.embeddings.units import load_units
from multimem_ray.run import Run
from multimem_ray.scoring.held_out_plan import Chosen
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import Receipt, commit_log


class UnitScorer:
    """Scores units and commits them.

    Args:
        run: The opened run.
        restarted: Whether an earlier process of this actor died.
    """

    def __init__(self, run: Run, restarted: bool | None = None) -> None:
        torch.set_num_threads(run.config.resources.score.cpus)
        self._run, self._log = run, commit_log(run)
        self._reader = UnitReader(run, load_units(run))
        self._held_out = StoredHeldOut(run, self._reader)
        self._monitor = Monitor(run.output)
        self._restarted = was_restarted() if restarted is None else restarted

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do one row of work; see :mod:`multimem_ray.scoring.pipeline` for the columns."""
        if row["kind"] == "held_out":
            keys = tuple(json.loads(row["names"]))
            self._held_out.embed(Chosen(row["url"], keys))
            return {"kind": "held_out", **asdict(Receipt(row["url"], 0, len(keys), 0, 0.0))}
        info = FileInfo(row["url"], row["size"], row["version"])
        receipt = self._log.receipt(info) if self._restarted and not row["retry"] else None
        return {"kind": "shard", **asdict(receipt or self._score(info, row))}

    def _score(self, info: FileInfo, row: dict[str, Any]) -> Receipt:
        statistics, started = self._held_out.statistics(), time.monotonic()
        unit = self._reader.units.of(info.url)
        with self._monitor.timing("embed"):
            scored = score_unit(self._reader, statistics, unit, lambda: time.monotonic() - started)
        stale = json.loads(row["stale"])
        self._log.commit(info, scored.receipt, scored.scores, scored.errors, stale)
        self._monitor.samples("score", scored.receipt.rows)
        self._monitor.commit(scored.receipt.errors)
        return scored.receipt
