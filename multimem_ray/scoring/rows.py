"""The columns of a score file, and how they follow from the agreement matrices.

``unseen_<modality>`` is the attribution of the consistency under the models that did not see a
sample: cmc_out = n/2 + their sum, and the lowest is the modality that fits the others least.
``unseen_clipmem`` is CLIPMem's alignment under them, summed over pairs.

``multimem_se`` takes the models of the two sides for independent; ``multimem_pair_se`` is the error
by pairs of models, ``multimem_view_variance`` the variance that views add to it; what is made of
both, and of all samples together, is in :mod:`multimem_ray.results.verdict`.

Undefined values are null, never NaN: a pair of which a modality is absent, a standard error with
fewer than two models on a side, MultiMem of a sample that every model saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from multimem_ray import metric
from multimem_ray.metric import Agreement, Calibration
from multimem_ray.run import Run
from multimem_ray.store.schema import ATTRIBUTION, CLIPMEM, PAIR, UNSEEN, VALUE, score_schema
from multimem_ray.verdict.attack import Population

IdentityRow: TypeAlias = tuple[str, int, str | None, str, str | None]
"""Key, index, label, group and partition value of a sample."""


@dataclass(frozen=True)
class Identity:
    """What is known of B samples beside their scores; one list entry per sample.

    Args:
        partitions: Values of ``scoring.partition_by`` where that is a field of the samples' json.
    """

    keys: list[str]
    indices: list[int]
    labels: list[str | None]
    groups: list[str]
    partitions: list[str | None] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[IdentityRow]) -> Identity:
        """Of samples one by one."""
        columns = zip(*rows, strict=True) if rows else ((),) * 5
        return cls(*(list(column) for column in columns))

    def at(self, row: int) -> Identity:
        """One of them."""
        one = slice(row, row + 1)
        columns = (self.keys, self.indices, self.labels, self.groups, self.partitions)
        return Identity(*(column[one] for column in columns))  # type: ignore[arg-type]


def schema_of(run: Run) -> pa.Schema:
    """Schema of a run's score rows."""
    return score_schema(
        run.modalities,
        len(run.design.model_ids()),
        target=run.config.design.target is not None,
        partitioned=run.config.scoring.partition_by is not None,
    )


def score_rows(
    run: Run,
    shard: str,
    who: Identity,
    present: Tensor,
    found: Sequence[Agreement],
    levels: Calibration | None = None,
    population: Population | None = None,
) -> pa.Table:
    """Score B samples of one shard.

    Args:
        who: The samples.
        present: (B, n) bool, the modalities of each.
        found: Agreement matrices, one per model.
        levels: With a target: what is taken away from each model before it is compared.
        population: The held-out set, which the attack compares with; without it, no risk is told.
    """
    names = run.modalities
    members, f, g = (torch.from_numpy(side) for side in run.sides(who.groups, shard))
    cmc = torch.stack([metric.cmc(a, present) for a in found])
    if levels is None:
        compared, extra, outside = found, {}, ~members
        score, seen = metric.contrast(cmc, f, g), metric.contrast(cmc, members, ~members)
        se = score.se
    else:
        compared = [levels.centred(a, model) for model, a in enumerate(found)]
        gap, gap_se, se = levels.gap(present, f, g)
        outside = g
        extra = {"gap": _nullable(gap), "gap_se": _nullable(gap_se)}
        centred = torch.stack([metric.cmc(a, present) for a in compared])
        score, seen = metric.contrast(centred, f, g), metric.contrast(cmc, f, g)

    def contrasted(of: Callable[[Agreement, Tensor], Tensor]) -> Tensor:
        return metric.contrast(torch.stack([of(a, present) for a in compared]), f, g).score

    def unseen(of: Callable[[Agreement, Tensor], Tensor]) -> Tensor:
        values = torch.stack([of(a, present) for a in compared])
        return metric.contrast(values, torch.zeros_like(outside), outside).mean_g

    pair, clipmem = contrasted(metric.pair_cmc), contrasted(metric.clipmem_alignment)
    attributed, fit = contrasted(metric.attribution), unseen(metric.attribution)
    columns: dict[str, object] = {
        "key": who.keys,
        "shard": [shard] * len(who.keys),
        "index": who.indices,
        "modalities": _modality_lists(names, present),
        "label": who.labels,
        "group": who.groups if run.config.design.group else [None] * len(who.keys),
        "split": _splits(run, who.groups, shard),
        "multimem": _nullable(score.score),
        "multimem_normalized": _nullable(metric.normalized(score.score, present.sum(1))),
        "multimem_se": _nullable(se),
        "multimem_pair_se": _nullable(_pair_se(run, cmc, f, g)),
        "multimem_view_variance": _nullable(_view_variance(found, f, g)),
        "n_in": seen.n_f.to(torch.int32).numpy(),
        "n_out": seen.n_g.to(torch.int32).numpy(),
        "cmc_in": _nullable(seen.mean_f),
        "cmc_out": _nullable(seen.mean_g),
        **extra,
    }
    for (j, a), (k, b) in combinations(enumerate(names), 2):
        columns[f"{PAIR}{a}_{b}"] = _nullable(pair[:, j, k])
        columns[f"{CLIPMEM}{a}_{b}"] = _nullable(clipmem[:, j, k])
    for j, name in enumerate(names):
        here = torch.where(present[:, j], attributed[:, j], torch.nan)
        columns[f"{ATTRIBUTION}{name}"] = _nullable(here)
        columns[f"{UNSEEN}{name}"] = _nullable(torch.where(present[:, j], fit[:, j], torch.nan))
    columns["unseen_clipmem"] = _nullable(unseen(_clipmem_sum))
    columns["attack_rmia"] = _risk(cmc, members, population)
    columns["cmc"] = _lists(cmc.t().to(torch.float32))
    columns["member"] = _lists(members)
    columns[VALUE] = _partition_values(run, who)
    schema = schema_of(run)
    return pa.table([pa.array(columns[n], schema.field(n).type) for n in schema.names], schema)


def _risk(cmc: Tensor, members: Tensor, population: Population | None) -> pa.Array:
    if population is None:
        return pa.nulls(len(members), pa.float64())
    risk = population.risk(cmc.t().double().numpy(), members.numpy())
    return pa.array(risk, pa.float64(), mask=np.isnan(risk))


def _partition_values(run: Run, who: Identity) -> list[str | None]:
    by = run.config.scoring.partition_by
    if by == "label":
        return who.labels
    if by == "group":
        # Who has no group is a group of its own, by its key.
        return [None if own == key else own for own, key in zip(who.groups, who.keys, strict=True)]
    return who.partitions


def _modality_lists(names: Sequence[str], present: Tensor) -> list[list[str]]:
    """The names of each sample's modalities; one list for all samples that have the same."""
    codes = (present.to(torch.int64) << torch.arange(len(names))).sum(dim=1).tolist()
    of_code = {
        code: [name for place, name in enumerate(names) if code >> place & 1] for code in set(codes)
    }
    return [of_code[code] for code in codes]


def _view_variance(found: Sequence[Agreement], f: Tensor, g: Tensor) -> Tensor:
    """(B,) NaN where the views are not known one by one, or not the same for all models."""
    by_view = [one.cmc_by_view for one in found if one.cmc_by_view is not None]
    if len(by_view) < len(found) or len({len(views) for views in by_view}) != 1:
        return torch.full((len(f),), torch.nan, dtype=torch.float64)
    return metric.view_variance(torch.stack(by_view), f, g)


def _pair_se(run: Run, cmc: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """(B,) NaN where models do not come in pairs or larger blocks, and for a target."""
    if run.design.block < 2 or run.config.design.target is not None:
        return torch.full((len(f),), torch.nan, dtype=torch.float64)
    return metric.paired_se(cmc, f, g, run.design.block)


def _clipmem_sum(found: Agreement, present: Tensor) -> Tensor:
    """(B,) CLIPMem's alignment, summed over the pairs that a sample has."""
    return metric.clipmem_alignment(found, present).triu(diagonal=1).nansum(dim=(1, 2))


def _splits(run: Run, groups: list[str], shard: str) -> list[str | None]:
    found = run.design.splits(groups) if run.trains_on(shard) else None
    return found or [None] * len(groups)


def _nullable(values: Tensor) -> pa.Array:
    array = values.numpy()
    return pa.array(array, pa.float64(), mask=np.isnan(array))


def _lists(values: Tensor) -> pa.Array:
    flat = pa.array(values.contiguous().view(-1).numpy())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
