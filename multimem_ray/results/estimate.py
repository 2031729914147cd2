"""Estimates the constants of a verdict from all rows of a run, in three passes of bounded memory.

1  errors, views, and what pairs of models have in common      VerdictMoments.add
2  how far shrunk scores may be off, by their place             VerdictMoments.spread
3  how many samples have which score ÷ error                    q-values
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from multimem_ray.design.membership import BLOCKS
from multimem_ray.results.arrays import Floats, floats, lists
from multimem_ray.results.population import stored_population
from multimem_ray.results.verdict import (
    BINS,
    CONFIDENCE,
    HIGHEST,
    LOWEST,
    PAIR_SE,
    SE,
    VIEWS,
    Verdict,
    bin_of,
    stored_columns,
)
from multimem_ray.storage import Storage
from multimem_ray.store.schema import SCORE
from multimem_ray.verdict.attack import Population
from multimem_ray.verdict.lists import Bins, q_values
from multimem_ray.verdict.moderation import LogVariances, pair_error
from multimem_ray.verdict.pairs import paired
from multimem_ray.verdict.shrinkage import ShrinkageMoments, Spread, SpreadMoments

LEAST_HELD_OUT = 20
"""Held-out samples below which nothing is learned from how their scores scatter."""


class Rows(Protocol):
    """What the estimate asks of the scores of a run."""

    output: str
    storage: Storage

    @property
    def stored(self) -> list[str]:
        """Names of the columns of the score files."""

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some of these columns, of all rows."""

    def query(self, sql: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """What DuckDB answers of the table ``scores``."""

    def document(self, *parts: str) -> dict[str, Any]:
        """A JSON file of the run."""


class VerdictMoments:
    """Sums over the rows that the constants follow from.

    Args:
        kind: Kind of the membership design.
        models: Number of reference models.
        own: Whether rows hold the error by pairs and what views add; those of earlier versions
            held the error by sides alone.
        target_df: Degrees of freedom of a target's errors, which rest on the held-out samples;
            None without a target.
    """

    def __init__(self, kind: str, models: int, *, own: bool, target_df: int | None) -> None:
        self._models, self._target_df = models, target_df
        self._block = BLOCKS.get(kind, 1)
        self._pairs = models // self._block if kind in BLOCKS else 0
        # Of a candidate design most samples are compared in vain: nothing is learned from all.
        self.shrinks = kind != "candidate" and self._pairs > 1 and target_df is None
        self.paired = bool(self._pairs) and own and target_df is None
        self._df = float(self._pairs - 1 if self.paired else models - 2)
        self._variances = LogVariances(max(1.0, self._df))
        self._shrinkage = ShrinkageMoments()
        self._views, self._seen = 0.0, 0

    def add(self, batch: pa.RecordBatch, cmc: Floats, member: Floats) -> None:
        """Add rows as they are stored, with their lists of models."""
        names, errors = batch.schema.names, floats(batch[SE])
        if self.paired and PAIR_SE in names:
            own = floats(batch[PAIR_SE])
            errors = np.where(np.isnan(own), errors, own)
        views = floats(batch[VIEWS]) if VIEWS in names else None
        self.update(cmc, member, errors, views)

    def update(self, cmc: Floats, member: Floats, errors: Floats, views: Floats | None) -> None:
        """Add rows.

        Args:
            cmc: (N, M) consistency per model, NaN where undefined.
            member: (N, M) 1 where the model trained on the sample, else 0.
            errors: (N,) standard errors of single samples, NaN where undefined.
            views: (N,) what the views add to the variance of each, NaN where undefined.
        """
        self._variances.update(np.square(errors))
        if views is not None:
            known = views[np.isfinite(views)]
            self._views += float(known.sum())
            self._seen += len(known)
        if self.shrinks:
            self._shrinkage.update(paired(cmc, member, self._pairs, self._block))

    def spread(self, batches: Iterable[pa.RecordBatch]) -> Spread | None:
        """What the shrunk scores leave open: a second pass over the rows; None without such.

        Args:
            batches: Of the columns ``cmc`` and ``member``.
        """
        if self._shrinkage.count <= 2:
            return None
        second = SpreadMoments(self._shrinkage.fit_to_fewer(self._of_views))
        for batch in batches:
            cmc, member = lists(batch["cmc"]), lists(batch["member"])
            second.update(paired(cmc, member, self._pairs, self._block))
        return second.fit(self._shrinkage.fit(self._of_views))

    @property
    def _of_views(self) -> float:
        return max(0.0, self._views / self._seen) if self._seen else 0.0

    def verdict(self, population: Population | None, spread: Spread | None) -> Verdict:
        """The constants but for the q-values.

        Args:
            population: The held-out set under the models; None where it was not kept.
            spread: What :meth:`spread` returned.
        """
        if self._target_df is not None:
            return Verdict(df=float(self._target_df))
        if population is not None and population.cmc.shape[1] != self._models:
            population = None  # of the models before there were more
        if self._models == 2:
            return _of_two(population)
        if self._df < 1 or not self._variances.count:
            return Verdict()
        views = self._of_views
        verdict = Verdict(
            self._df,
            self._variances.prior(),
            views,
            shrinkage=None if spread is None else self._shrinkage.fit(views),
            spread=spread,
            paired=self.paired,
            null=_of_null(population, self._pairs, self._block) if self.paired else None,
        )
        by_chance = _by_chance(verdict, population, self._pairs, self._block)
        return replace(verdict, by_chance=by_chance)


def _of_two(population: Population | None) -> Verdict:
    """Of two models: how far from zero the scores of held-out samples are, which neither saw.

    The gap between the models is part of every literal score, and so of its error.
    """
    if population is None or len(population.cmc) < 3:
        return Verdict()
    d = population.cmc[:, 0] - population.cmc[:, 1]
    error = pair_error(d)
    if not error > 0:
        return Verdict()
    return Verdict(df=float(len(d) - 1), constant=error, by_chance=None)


def _of_null(population: Population | None, pairs: int, block: int) -> float | None:
    """Squared standard error of the scores of held-out samples, with the memberships of their hash.

    Models agree more on what they were trained on, and the error of trained samples promises too
    little of others.
    """
    if population is None:
        return None
    values = paired(population.cmc, population.member.astype(float), pairs, block)[:, :, 1]
    values = values[np.isfinite(values).all(axis=1)]
    return float(np.square(values).mean() / pairs) if len(values) >= LEAST_HELD_OUT else None


def _by_chance(
    verdict: Verdict, population: Population | None, pairs: int, block: int
) -> float | None:
    """Share of held-out samples that would stand out, with the memberships of their hash."""
    if population is None or not verdict.paired:
        return None
    values = paired(population.cmc, population.member.astype(float), pairs, block)[:, :, 1]
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    errors = verdict.errors(values.std(axis=1, ddof=1) / math.sqrt(pairs))
    reach = verdict.prior.quantile(verdict.df, CONFIDENCE)
    return float((values.mean(axis=1) > reach * errors).mean())


def _with_q_values(verdict: Verdict, table: Rows) -> Verdict:
    """The verdict with q-values, from one more pass over scores and errors."""
    if not verdict.df:
        return verdict
    error = verdict.null_error()
    counted = table.query(
        f"SELECT {bin_of(error)} AS bin, count(*) AS rows FROM scores "
        f"WHERE {SCORE} IS NOT NULL AND {error} > 0 GROUP BY 1",
        stored_columns(table.stored),
    )
    bins = Bins(LOWEST, HIGHEST, BINS)
    for row in counted:
        bins.counts[row["bin"]] = row["rows"]
    if not counted:
        return verdict
    return replace(verdict, q=tuple(_rounded_up(q) for q in q_values(bins, verdict.total_df)))


def _rounded_up(value: float) -> float:
    """With three digits, never below the value: few runs, and no list longer than it may be."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return min(1.0, float(f"{math.ceil(value / unit) * unit:.3g}"))


def estimate(table: Rows) -> Verdict:
    """The constants of a run, from its rows."""
    known = set(table.stored)
    if not {"cmc", "member", SE} <= known:
        return Verdict()
    run = table.document("run.json")
    held_out = table.document("held_out", "held_out.json")
    design = dict((run.get("config") or {}).get("design") or {})
    columns = ["cmc", "member", *(c for c in (SE, PAIR_SE, VIEWS) if c in known)]
    moments: VerdictMoments | None = None
    for batch in table.batches(columns):
        cmc = lists(batch["cmc"])
        moments = moments or moments_of(design, held_out, cmc.shape[1], own=PAIR_SE in known)
        moments.add(batch, cmc, lists(batch["member"]))
    if moments is None:
        return Verdict()
    return concluded(moments, table, stored_population(table.output, table.storage))


def concluded(moments: VerdictMoments, table: Rows, population: Population | None) -> Verdict:
    """The verdict that follows from the sums over all rows, by two more passes."""
    spread = moments.spread(table.batches(["cmc", "member"])) if moments.shrinks else None
    return _with_q_values(moments.verdict(population, spread), table)


def moments_of(
    design: Mapping[str, Any], held_out: Mapping[str, Any], models: int, *, own: bool
) -> VerdictMoments:
    """The sums for a run.

    Args:
        design: Section ``design`` of its configuration.
        held_out: Its ``held_out.json``.
        models: Length of its lists of models.
        own: See :class:`VerdictMoments`.
    """
    kind = str(design.get("kind", "complementary_halves"))
    target_df = max(1, int(held_out.get("samples") or 2) - 1) if design.get("target") else None
    references = models - (target_df is not None)
    return VerdictMoments(kind, references, own=own, target_df=target_df)
