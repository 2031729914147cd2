"""The held-out set from stored embeddings: which samples, and what each model made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from multimem_ray import metric
from multimem_ray.embeddings.score import UnitReader
from multimem_ray.embeddings.side_by_side import Rows
from multimem_ray.run import Run
from multimem_ray.scoring.held_out import HeldOutMeans
from multimem_ray.scoring.held_out_parts import Embedded
from multimem_ray.scoring.held_out_plan import Chosen

if TYPE_CHECKING:
    from multimem_ray.scoring.bank import ScoringBank


@dataclass(frozen=True)
class _Dimensions:
    dim: int


class StoredHeldOut(HeldOutMeans):
    """Mean vectors of stored embeddings; everything else is as with models."""

    def __init__(self, run: Run, reader: UnitReader) -> None:
        # Nothing is embedded here: of the bank only the number of dimensions is asked.
        super().__init__(run, cast("ScoringBank", _Dimensions(run.config.model.dim)))
        self._reader = reader

    def part(self, chosen: Chosen, careful: bool) -> Embedded:
        """See :meth:`HeldOutMeans.part`; a sample that cannot be used is left out of the means."""
        del careful
        wanted, found = pa.array(chosen.keys, pa.large_string()), []
        for rows in self._reader.parts(self._reader.units.of(chosen.shard)):
            if isinstance(rows, Rows):
                at = np.flatnonzero(_is_in(rows.keys, wanted) & ~rows.repeated)
                if len(at):
                    found.append(self._of(_picked(rows, at)))
        return Embedded.joined([self._embedded([]), *found])

    def _of(self, rows: Rows) -> Embedded:
        dim, units = self._run.config.model.dim, self._reader.units
        vectors = self._reader.vectors(rows)
        present = torch.from_numpy(np.logical_and.reduce([v.present for v in vectors]))
        means, alignments = [], []
        usable = torch.ones(len(present), dtype=torch.bool)
        for of_model, views in zip(vectors, units.spec.views, strict=True):
            embedded = _normalised(of_model.found, views, dim)
            finite = embedded.square().sum(-1).isfinite().all(0)
            usable &= (finite | ~present).all(1)
            nowhere = torch.zeros(embedded.shape[-2:])
            means.append(torch.where(present[:, :, None], embedded.mean(0), 0.0))
            alignments.append(metric.agreement(embedded, present, nowhere).alignment)
        usable &= present.sum(1) >= 2
        return Embedded(
            torch.stack(means)[:, usable], torch.stack(alignments)[:, usable], present[usable]
        )


def _normalised(found: Sequence[NDArray[np.float32]], views: int, dim: int) -> Tensor:
    """(V, B, n, dim) of length 1, padded with zeros; NaN where a vector has no direction."""
    made = [torch.from_numpy(x.copy()).reshape(len(x), views, -1) for x in found]
    stacked = torch.stack(made, dim=2).transpose(0, 1)
    unit = stacked / stacked.double().norm(dim=-1, keepdim=True).float()
    return torch.nn.functional.pad(unit, (0, dim - unit.shape[-1]))


def _is_in(keys: pa.Array, wanted: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(keys, value_set=wanted).to_numpy(zero_copy_only=False), dtype=bool)


def _picked(rows: Rows, at: NDArray[np.int64]) -> Rows:
    taken = pa.array(at)
    blocks = [block.take(taken) for block in rows.blocks]
    return Rows(rows.first, rows.keys.take(taken), blocks, rows.repeated[at])


def held_out_of_unit(reader: UnitReader, url: str) -> tuple[list[str], list[str]]:
    """Keys and labels of the held-out samples of a unit."""
    keys, labels = list[str](), list[str]()
    unit = reader.units.of(url)
    for rows in reader.parts(unit, vectors_too=False):
        if not isinstance(rows, Rows):
            continue
        flags = reader.held_out(rows, reader.groups(rows), url) & ~rows.repeated
        at = pa.array(np.flatnonzero(flags))
        keys += rows.keys.take(at).to_pylist()
        every = reader.labels(rows)
        labels += [str(every[place]) for place in at.to_pylist()]
    return keys, labels
