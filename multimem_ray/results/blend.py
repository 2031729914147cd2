"""The scores of two audits of the same shards as one: by the full model, and by a cheaper one.

Both are ordinary runs of complementary halves with one ``design.seed``, so that the held-out set is
the same, and of which the cheaper has another ``design.draw`` (and best another ``scoring.seed``):
halves in common would be errors in common, and agreement by them. See
:mod:`multimem_ray.verdict.blend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from multimem_ray.design.hashing import uniform
from multimem_ray.errors import ConfigError
from multimem_ray.results.arrays import Floats, floats, lists
from multimem_ray.results.table import ScoreTable
from multimem_ray.verdict.blend import FOLDS, LEAST, Blend, BlendMoments
from multimem_ray.verdict.pairs import paired

_ID = ("shard", "index")


@dataclass(frozen=True)
class Blended:
    """What both audits say together.

    Attributes:
        table: ``key``, ``shard``, ``index``, ``multimem``, ``proxy`` (the cheaper model's score,
            null where it has none), ``multimem_blend`` and ``multimem_blend_sd``, highest first.
        blend: The weights, and how far the cheaper model agrees with the full one.
        unmatched: Scored samples without a score by the cheaper model; they are predicted by the
            full models alone.
    """

    table: pa.Table
    blend: Blend
    unmatched: int


def blend_scores(full: ScoreTable, proxies: ScoreTable) -> Blended:
    """Blend the scores of two runs; their rows are held in memory.

    Args:
        full: By the model that the question is about; two pairs or more.
        proxies: By a cheaper model; as many or more.

    Raises:
        ConfigError: The runs are none of the kind, or too few samples have both scores.
    """
    designs = [_design(table) for table in (full, proxies)]
    if all(designs[0].get(name, 0) == designs[1].get(name, 0) for name in ("seed", "draw")):
        raise ConfigError(
            f"{proxies.output} trained on the halves of {full.output}, so that their errors are "
            "the same: audit by the cheaper model with another design.draw"
        )
    for table, design in zip((full, proxies), designs, strict=True):
        if int(design["models"]) < 4:
            raise ConfigError(f"{table.output}: a blend takes two pairs of either model or more")
    columns = ["key", *_ID, "multimem", "cmc_out", "cmc", "member"]
    rows, theirs = (_scored(table, columns) for table in (full, proxies))
    values, of_proxies = _pairs(rows, designs[0]), _pairs(theirs, designs[1])
    place = _places(rows, theirs)
    known = place >= 0
    moments = BlendMoments()
    folds = (uniform(0, "blend folds", rows["key"].to_pylist()) * FOLDS).astype(np.int64)
    moments.update(values[known], of_proxies[place[known]], folds[known])
    blend = moments.fit(full.verdict.views)
    if blend is None:
        raise ConfigError(
            f"{full.output} and {proxies.output} have {int(known.sum())} scored samples in common, "
            f"and a blend takes {LEAST} of them"
        )
    y = np.full((len(values), 4), np.nan)
    y[:, :2] = values.mean(axis=1)
    y[known, 2:] = of_proxies[place[known]].mean(axis=1)
    score = np.full(len(values), np.nan)
    score[known] = floats(theirs["multimem"])[place[known]]
    return _told(rows, y, score, blend)


def _design(table: ScoreTable) -> dict[str, Any]:
    config = table.document("run.json").get("config") or {}
    design = dict(config.get("design") or {})
    if design.get("kind") != "complementary_halves" or design.get("target"):
        raise ConfigError(
            f"{table.output} is no audit by complementary_halves, which alone can be blended"
        )
    return design


def _scored(table: ScoreTable, columns: list[str]) -> pa.Table:
    fields = [table.schema.field(name) for name in columns if table.columns]
    if not fields:
        raise ConfigError(f"{table.output}: nothing is scored yet")
    rows = pa.Table.from_batches(table.batches(columns), pa.schema(fields))
    return rows.filter(rows["multimem"].is_valid()).combine_chunks()


def _pairs(rows: pa.Table, design: dict[str, Any]) -> Floats:
    return paired(lists(rows["cmc"]), lists(rows["member"]), int(design["models"]) // 2)


def _places(rows: pa.Table, theirs: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(N,) where each sample stands among the others; -1: nowhere."""
    mine, other = (
        table.select(_ID).append_column(name, pa.array(np.arange(len(table))))
        for table, name in ((rows, "mine"), (theirs, "other"))
    )
    joined = mine.join(other, list(_ID), join_type="inner")
    place = np.full(len(rows), -1, np.int64)
    place[joined["mine"].to_numpy()] = joined["other"].to_numpy()
    return place


def _told(rows: pa.Table, y: Floats, theirs: Floats, blend: Blend) -> Blended:
    matched = np.isfinite(y[:, 2:]).all(axis=1)
    off = y - blend.mean
    score = blend.mean[1] + np.where(
        matched, np.nan_to_num(off) @ blend.weights, off[:, :2] @ blend.alone
    )
    columns = {name: rows[name] for name in ("key", *_ID)} | {
        "multimem": floats(rows["multimem"]),
        "proxy": pa.array(theirs, from_pandas=True),
        "multimem_blend": score,
        "multimem_blend_sd": np.where(matched, blend.sd, blend.alone_sd),
    }
    order = [("multimem_blend", "descending"), ("shard", "ascending"), ("index", "ascending")]
    return Blended(pa.table(columns).sort_by(order), blend, int((~matched).sum()))
