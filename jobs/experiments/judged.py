"""What the verdict says of audits that are parts of one: subsets of its models, or of its samples.

The mathematics is the product's own (:mod:`multimem_ray.results.estimate`); only the rows come from
arrays. So one run of many models is as many audits of four of them as it has pairs of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multimem_ray.evaluation.bootstrap import Estimate
from multimem_ray.results.arrays import floats, lists
from multimem_ray.results.estimate import VerdictMoments
from multimem_ray.results.population import stored_population
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.verdict import BINS, CONFIDENCE, HIGHEST, LOWEST, VIEWS, Verdict
from multimem_ray.run import Run
from multimem_ray.verdict.attack import Population
from multimem_ray.verdict.lists import Bins, q_values
from multimem_ray.verdict.pairs import paired

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
DRAWS = 500


@dataclass(frozen=True)
class Consistencies:
    """The scored samples of a run under its models.

    Args:
        keys: Name of the shard and key of each sample, ``shard.tar:key``.
        cmc: (N, M).
        member: (N, M), 1 where the model trained on the sample.
        views: (N,) variance that the views add to a score.
        held_out: The held-out set under the same models.
    """

    keys: tuple[str, ...]
    cmc: Floats
    member: Floats
    views: Floats
    held_out: Population | None

    @classmethod
    def of(cls, run: Run) -> Consistencies:
        """Of a scored run; samples without a score are left out."""
        parts: list[tuple[list[str], Floats, Floats, Floats]] = []
        names = ["shard", "key", "multimem", "cmc", "member", VIEWS]
        for batch in ScoreTable(run.output, run.storage).batches(names):
            rows = batch.filter(batch["multimem"].is_valid())
            cmc, member = lists(rows["cmc"]), lists(rows["member"])
            named = zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True)
            names_of = [f"{PurePosixPath(shard).name}:{key}" for shard, key in named]
            parts.append((names_of, cmc, member, floats(rows[VIEWS])))
        keys = [key for part in parts for key in part[0]]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        cmc, member, views = (np.concatenate([p[i] for p in parts])[order] for i in (1, 2, 3))
        held_out = stored_population(run.output, run.storage)
        return cls(tuple(keys[i] for i in order), cmc, member, views, held_out)

    def models(self, chosen: Sequence[int]) -> Consistencies:
        """Under some of the models."""
        places = list(chosen)
        held_out = self.held_out
        if held_out is not None:
            some = held_out.cmc[:, places], held_out.member[:, places]
            held_out = replace(held_out, cmc=some[0], member=some[1])
        cmc, member = self.cmc[:, places], self.member[:, places]
        return replace(self, cmc=cmc, member=member, held_out=held_out)

    def samples(self, places: Places) -> Consistencies:
        """Some of the samples."""
        return replace(
            self,
            keys=tuple(self.keys[i] for i in places),
            cmc=self.cmc[places],
            member=self.member[places],
            views=self.views[places],
        )

    def places(self, keys: Sequence[str]) -> Places:
        """Where these samples stand."""
        known = {key: place for place, key in enumerate(self.keys)}
        return np.array([known[key] for key in keys], np.intp)

    def blocks(self, size: int) -> Floats:
        """(N, B) score by each block of so many models: those that saw a sample − the others."""
        return paired(self.cmc, self.member, self.cmc.shape[1] // size, size)[:, :, 1]


@dataclass(frozen=True)
class Judged:
    """What an audit says of its samples; (N,) each.

    Args:
        score: MultiMem.
        error: Its standard error.
        shrunk: The shrunk score; NaN where there is none, as its deviation.
        sd: Its standard deviation.
        q: q-value against "not memorized".
        verdict: The constants.
    """

    score: Floats
    error: Floats
    shrunk: Floats
    sd: Floats
    q: Floats
    verdict: Verdict

    @property
    def reach(self) -> float:
        """By how many errors an interval reaches out."""
        return self.verdict.prior.quantile(self.verdict.df, CONFIDENCE)


def judge(audit: Consistencies) -> Judged:
    """The verdict on complementary pairs of models."""
    models = audit.cmc.shape[1]
    values = paired(audit.cmc, audit.member, models // 2)[:, :, 1]
    score = values.mean(axis=1)
    own = np.full(len(score), np.nan)
    if models > 2:
        own = values.std(axis=1, ddof=1) / (models // 2) ** 0.5
    moments = VerdictMoments("complementary_halves", models, own=True, target_df=None)
    moments.update(audit.cmc, audit.member, own, audit.views)
    spread = moments.spread([_batch(audit)]) if moments.shrinks else None
    verdict = moments.verdict(audit.held_out, spread)
    error = verdict.errors(own)
    shrunk = sd = np.full(len(score), np.nan)
    if verdict.shrinkage is not None and verdict.spread is not None:
        out = paired(audit.cmc, audit.member, models // 2)[:, :, 0].mean(axis=1)
        shrunk = verdict.shrinkage.shrunk(np.stack([out, score], axis=1))
        sd = verdict.spread.sd(shrunk)
    bins = Bins(LOWEST, HIGHEST, BINS)
    t = (score / error).clip(LOWEST, HIGHEST)
    bins.update(t)
    q = q_values(bins, verdict.total_df)[bins.places(t)]
    return Judged(score, error, shrunk, sd, q, verdict)


def drawn(values: Any, count: int, statistic: Any, seed: int = 0) -> Estimate:
    """A statistic of samples with a percentile bootstrap interval over them.

    Args:
        values: Passed on to the statistic.
        count: How many samples there are.
        statistic: Of the values and the places of samples; NaN where it has no meaning.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    draws = [statistic(values, rng.integers(0, count, count)) for _ in range(DRAWS)]
    known = np.array([d for d in draws if np.isfinite(d)])
    value = float(statistic(values, np.arange(count)))
    if len(known) < DRAWS // 2:
        return Estimate(value, float("nan"), float("nan"), float("nan"), count)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high), float(known.std(ddof=1)), count)


def _batch(audit: Consistencies) -> pa.RecordBatch:
    models = audit.cmc.shape[1]
    flat = {"cmc": audit.cmc, "member": audit.member}
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), models)
        for name, values in flat.items()
    }
    return pa.RecordBatch.from_pydict(columns)
