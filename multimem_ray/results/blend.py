"""The scores of two audits of the same shards as one: by the full model, and by a cheaper one.

Both are ordinary runs of complementary halves with one ``design.seed``, so that the held-out set is
the same, and of which the cheaper has another ``design.draw`` (and another ``scoring.seed``):
halves in common would be errors in common, and agreement by them. ``design.proxy`` makes such a run
in the folder ``proxy`` of the output, and keeps what both say together beside the scores:

    blend.json      the weights, the agreement, what it is worth and what each side took
    blend.parquet   shard, index, multimem_blend, multimem_blend_sd of every scored sample

which readers of the run have as further columns. The mathematics is in
:mod:`multimem_ray.verdict.blend`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.design.hashing import uniform
from multimem_ray.errors import ConfigError
from multimem_ray.results.arrays import lists
from multimem_ray.results.table import BLEND_JSON, BLEND_PARQUET, BLENDED, ScoreTable
from multimem_ray.verdict.blend import FOLDS, LEAST, Blend, BlendMoments
from multimem_ray.verdict.pairs import paired

_PER_MODEL = ("key", "shard", "index", "multimem", "cmc", "member")
_MEANS = ("key", "shard", "index", "multimem", "cmc_out")


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
    """Blend the scores of two runs, as a table in memory.

    Args:
        full: By the model that the question is about; two pairs or more.
        proxies: By a cheaper model; as many or more.

    Raises:
        ConfigError: The runs are none of the kind, or too few samples have both scores.
    """
    blend = fit_blend(full, proxies)
    rows = pa.Table.from_batches(list(_rows(full, proxies, blend)))
    return Blended(rows, blend, rows["proxy"].null_count)


def write_blend(
    full: ScoreTable, proxies: ScoreTable, timings: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Keep the blend of two runs in the folder of the first.

    Args:
        timings: What the stages of either took, as ``timings.json`` has it.

    Returns:
        The content of ``blend.json``: ``of`` and ``proxies`` (which rows), ``samples``,
        ``unmatched``, ``agreement`` ([value, low, high] or None), ``weights``, ``sd`` and
        ``alone_sd`` (error left with and without the proxies), ``limit`` (correlation with the
        ranking by very many full models: ``full``, ``blend``) and ``cost`` of either side.

    Raises:
        ConfigError: See :func:`blend_scores`.
    """
    blend = fit_blend(full, proxies)
    rows = pa.Table.from_batches(list(_rows(full, proxies, blend)))
    sink = BytesIO()
    pq.write_table(rows.select(["shard", "index", *BLENDED]), sink, compression="zstd")
    content = {
        "of": full.version,
        "proxies": {"output": proxies.output, **proxies.version},
        "samples": blend.samples,
        "unmatched": rows["proxy"].null_count,
        "agreement": blend.agreement and list(blend.agreement),
        "weights": blend.weights.tolist(),
        "sd": blend.sd,
        "alone_sd": blend.alone_sd,
        "limit": {"full": blend.limit(blend.alone_sd), "blend": blend.limit(blend.sd)},
        "cost": {
            name: {"models": _design(table)["models"], **_cost(entries)}
            for name, table, entries in zip(
                ("full", "proxies"), (full, proxies), timings, strict=True
            )
        },
    }
    full.storage.write_atomic(full.storage.join(full.output, BLEND_PARQUET), sink.getvalue())
    # The document last: without it, and unless it is of these rows, the table is not believed.
    url = full.storage.join(full.output, BLEND_JSON)
    full.storage.write_atomic(url, json.dumps(content, indent=1).encode())
    return content


def _cost(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Hours that the stages of a run took, of its cores and of its GPUs."""
    hours = [(entry["seconds"] / 3600, entry["cpus"], entry["gpus"]) for entry in entries]
    return {
        "hours": sum(h for h, _, _ in hours),
        "cpu_hours": sum(h * cpus for h, cpus, _ in hours),
        "gpu_hours": sum(h * gpus for h, _, gpus in hours),
    }


def fit_blend(full: ScoreTable, proxies: ScoreTable) -> Blend:
    """How two runs are blended, in one pass over what both scored.

    Raises:
        ConfigError: See :func:`blend_scores`.
    """
    mine, theirs = (_design(table) for table in (full, proxies))
    if all(mine.get(name, 0) == theirs.get(name, 0) for name in ("seed", "draw")):
        raise ConfigError(
            f"{proxies.output} trained on the halves of {full.output}, so that their errors are "
            "the same: audit by the cheaper model with another design.draw"
        )
    for table, design in ((full, mine), (proxies, theirs)):
        if int(design["models"]) < 4:
            raise ConfigError(f"{table.output}: a blend takes two pairs of either model or more")
        if not table.columns:
            raise ConfigError(f"{table.output}: nothing is scored yet")
    moments = BlendMoments()
    for batch in _joined(
        full,
        proxies,
        "scores.key, scores.cmc, scores.member, p.cmc AS of_proxy, p.member AS proxy_member",
        _PER_MODEL,
        "JOIN",
        "AND p.multimem IS NOT NULL",
    ):
        folds = (uniform(0, "blend folds", batch["key"].to_pylist()) * FOLDS).astype(np.int64)
        moments.update(
            paired(lists(batch["cmc"]), lists(batch["member"]), int(mine["models"]) // 2),
            paired(
                lists(batch["of_proxy"]), lists(batch["proxy_member"]), int(theirs["models"]) // 2
            ),
            folds,
        )
    blend = moments.fit(full.verdict.views)
    if blend is None:
        raise ConfigError(
            f"{full.output} and {proxies.output} have {moments.samples} scored samples in common, "
            f"and a blend takes {LEAST} of them"
        )
    return blend


def _design(table: ScoreTable) -> dict[str, Any]:
    config = table.document("run.json").get("config") or {}
    design = dict(config.get("design") or {})
    if design.get("kind") != "complementary_halves" or design.get("target"):
        raise ConfigError(
            f"{table.output} is no audit by complementary_halves, which alone can be blended"
        )
    return design


def _rows(full: ScoreTable, proxies: ScoreTable, blend: Blend) -> Iterator[pa.RecordBatch]:
    """The rows of :attr:`Blended.table`, best first."""

    def predicted(weights: Sequence[float], y: Sequence[str]) -> str:
        terms = [
            f"{weight!r} * ({name} - {mean!r})"
            for weight, name, mean in zip(weights, y, blend.mean.tolist(), strict=False)
        ]
        return " + ".join([repr(float(blend.mean[1])), *terms])

    y = ("scores.cmc_out", "scores.multimem", "p.cmc_out", "p.multimem")
    both, alone = predicted(blend.weights.tolist(), y), predicted(blend.alone.tolist(), y)
    value = f"CASE WHEN p.multimem IS NULL THEN {alone} ELSE {both} END"
    sd = f"CASE WHEN p.multimem IS NULL THEN {blend.alone_sd!r} ELSE {blend.sd!r} END"
    names = ", ".join(f'scores."{name}"' for name in ("key", "shard", "index", "multimem"))
    return _joined(
        full,
        proxies,
        f"{names}, p.multimem AS proxy, {value} AS {BLENDED[0]}, {sd}::DOUBLE AS {BLENDED[1]}",
        _MEANS,
        "LEFT JOIN",
        f"ORDER BY {BLENDED[0]} DESC, scores.shard, scores.index",
    )


def _joined(
    full: ScoreTable,
    proxies: ScoreTable,
    select: str,
    columns: Sequence[str],
    join: str,
    rest: str,
) -> Iterator[pa.RecordBatch]:
    """Scored samples of the full run beside what the proxies (``p``) say of them."""
    schema = pa.schema([proxies.schema.field(name) for name in columns])
    reader = pa.RecordBatchReader.from_batches(schema, proxies.batches(columns))
    return full.stream(
        f"SELECT {select} FROM scores {join} proxies AS p "
        "ON scores.shard = p.shard AND scores.index = p.index "
        f"WHERE scores.multimem IS NOT NULL {rest}",
        columns,
        tables={"proxies": reader},
    )


def blend_words(blend: Mapping[str, Any] | None) -> list[str]:
    """What the proxies agree in, are worth and took, in sentences; none without them."""
    if not blend:
        return []
    cost, agreement = blend["cost"], blend["agreement"]
    if agreement is None:
        said = "unknown: the scores of either side are not above their error"
    else:
        said = f"{agreement[0]:.2f} ({agreement[1]:.2f} to {agreement[2]:.2f})"
    of = (
        f"{cost['proxies']['models']} proxies: agreement with the full model, free of error, {said}"
    )
    if not any(blend["weights"][2:]):
        return [f"{of}; they get no weight, so that multimem_blend is the full models' alone"]
    limit = blend["limit"]
    said = (
        f"{of}; correlation with the scores of very many full models about {limit['blend']:.2f} by "
        f"multimem_blend, {limit['full']:.2f} without them: multimem top --by multimem_blend"
    )
    took = [
        f"{cost[side]['models']} {name} took {cost[side]['cpu_hours']:.2g} core-hours"
        + (f", {cost[side]['gpu_hours']:.2g} GPU-hours" if cost[side]["gpu_hours"] else "")
        for side, name in (("full", "full models"), ("proxies", "proxies"))
    ]
    return [said, "; ".join(took)] if math.isfinite(limit["blend"]) else [of]
