"""The scoring actor of a run on stored embeddings: no model, and the held-out set from files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimem_ray import metric
from multimem_ray.distributed.executor import Row
from multimem_ray.distributed.session import actor_id, was_restarted
from multimem_ray.embeddings.align import Rows, UnitReader
from multimem_ray.embeddings.score import score_unit
from multimem_ray.embeddings.units import load_units
from multimem_ray.run import Run
from multimem_ray.scoring.actor import Scorer
from multimem_ray.scoring.held_out import HeldOut
from multimem_ray.scoring.held_out_plan import Chosen
from multimem_ray.scoring.held_out_stats import Embedded
from multimem_ray.scoring.shard import ScoredShard
from multimem_ray.storage import FileInfo
from multimem_ray.store.commits import commit_log
from multimem_ray.store.parts import Part


class UnitScorer(Scorer):
    """Scores units and commits them.

    Args:
        run: The opened run.
        restarted: Whether an earlier process of this actor died; default: as Ray says.
    """

    def __init__(self, run: Run, restarted: bool | None = None) -> None:
        torch.set_num_threads(run.config.resources.score.cpus)
        self._reader = UnitReader(run, load_units(run))
        died = was_restarted() if restarted is None else restarted
        held_out = StoredHeldOut(run, self._reader, actor=actor_id())
        super().__init__(run, commit_log(run), held_out, restarted=died)

    def scored(self, shard: FileInfo, row: Row) -> ScoredShard:
        del row
        statistics = self.held_out.statistics()
        with self.monitor.timing("embed"):
            return score_unit(self._reader, statistics, self._reader.units.of(shard.url))


class StoredHeldOut(HeldOut):
    """The held-out set from stored embeddings."""

    def __init__(self, run: Run, reader: UnitReader, actor: str | None = None) -> None:
        super().__init__(run, actor=actor)
        self._reader = reader

    def part(self, chosen: Chosen, *, careful: bool) -> Part[Embedded]:
        # Nothing is decoded here, and no model computes: no sample can kill.
        del careful
        run, keys = self._run, pa.array(chosen.keys, pa.large_string())
        models, dim = len(run.design.model_ids()), run.config.model.dim
        embedded = [Embedded.nothing(models, len(run.modalities), dim)]
        for rows in self._reader.rows(self._reader.units.of(chosen.shard)):
            if isinstance(rows, Rows):
                chosen_rows = pc.is_in(rows.keys, value_set=keys).to_numpy(zero_copy_only=False)
                at = np.flatnonzero(chosen_rows & ~rows.repeated)
                if len(at):
                    embedded.append(_embedded(self._reader, rows.take(at), dim))
        whole = Embedded.joined(embedded)
        return Part(0, len(whole), whole, 0, [])


def _embedded(reader: UnitReader, rows: Rows, dim: int) -> Embedded:
    """Samples as all models have them, without those that one of them cannot compare."""
    vectors = reader.vectors(rows)
    present = torch.from_numpy(np.logical_and.reduce([v.present for v in vectors]))
    means, alignments = [], []
    usable = present.sum(1) >= 2
    for of_model, views in zip(vectors, reader.units.spec.views, strict=True):
        unit = _normalised(of_model.values, views, dim)
        finite = unit.square().sum(-1).isfinite().all(0)
        usable &= (finite | ~present).all(1)
        nowhere = torch.zeros(unit.shape[-2:])
        means.append(torch.where(present[:, :, None], unit.mean(0), 0.0))
        alignments.append(metric.agreement(unit, present, nowhere).alignment)
    mean, alignment = torch.stack(means), torch.stack(alignments)
    assigned = torch.from_numpy(reader.run.design.assignments(reader.groups(rows)))
    return Embedded(mean[:, usable], alignment[:, usable], present[usable], assigned[usable])


def _normalised(vectors: Sequence[NDArray[np.float32]], views: int, dim: int) -> Tensor:
    """(V, B, n, dim) of length 1, padded with zeros; NaN where a vector has no direction."""
    per_view = [torch.from_numpy(x.copy()).reshape(len(x), views, -1) for x in vectors]
    stacked = torch.stack(per_view, dim=2).transpose(0, 1)
    unit = stacked / stacked.double().norm(dim=-1, keepdim=True).float()
    return torch.nn.functional.pad(unit, (0, dim - unit.shape[-1]))
