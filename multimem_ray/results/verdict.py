"""What a score is worth: its error, interval, shrunk value and q-value, from all samples together.

Rows of ``scores/`` hold what one sample says of itself. What all of them say together (how far
errors of single samples can be trusted, how much of the spread is truth) is a handful of constants:
estimated in a few passes over the rows, kept in ``summary.json``, and turned into further columns
when rows are read. So nothing is written twice, and a run that got more models needs no second
scoring.

    multimem_error        standard error: models (moderated, F1 below) and views together
    multimem_low, _high   95 % interval of the score of very many models and views
    multimem_shrunk, _shrunk_sd   the score that is expected of very many models, and how surely
    multimem_q            share of false ones on the shortest list, by score ÷ error, that it is on;
                          a false one is a sample that is not memorized at all

The mathematics is in :mod:`multimem_ray.metric.moderation`, :mod:`~multimem_ray.metric.shrinkage`
and :mod:`~multimem_ray.metric.lists`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multimem_ray.metric.attack import Population
from multimem_ray.metric.lists import Bins, q_values
from multimem_ray.metric.moderation import NOTHING_BORROWED, LogVariances, VariancePrior, pair_error
from multimem_ray.metric.shrinkage import Shrinkage, ShrinkageMoments, Spread, SpreadMoments
from multimem_ray.results.arrays import Floats, floats, lists
from multimem_ray.results.population import stored_population
from multimem_ray.store.schema import SCORE

if TYPE_CHECKING:
    from multimem_ray.results.table import ScoreTable

ERROR, LOW, HIGH, Q = "multimem_error", "multimem_low", "multimem_high", "multimem_q"
SHRUNK, SHRUNK_SD = "multimem_shrunk", "multimem_shrunk_sd"
DERIVED = (ERROR, LOW, HIGH, Q, SHRUNK, SHRUNK_SD)
"""Columns that rows get when they are read."""
SE, PAIR_SE, VIEWS = "multimem_se", "multimem_pair_se", "multimem_view_variance"
PAIRED = frozenset({"complementary_halves", "candidate"})
CONFIDENCE = 0.95
_LOWEST, _HIGHEST, _BINS = -8.0, 40.0, 4_800  # of t; what lies beyond is counted with the outermost


@dataclass(frozen=True)
class Verdict:
    """The constants.

    Args:
        df: Degrees of freedom of a single sample's standard error; 0: there is none.
        prior: What all samples say about the squared standard error of one.
        views: Variance that the views add to every score.
        constant: Standard error of every score, where it rests on the held-out set.
        by_chance: Share of held-out samples whose interval lies above zero; None: unknown.
        shrinkage: How scores are shrunk; None with fewer than two pairs of models.
        spread: What the shrunk scores leave open; there when the shrinkage is.
        q: q-values by bins of t, highest first; empty where there is no error.
        paired: Whether errors are those of pairs; rows of earlier versions have them by sides.
    """

    df: float = 0.0
    prior: VariancePrior = NOTHING_BORROWED
    views: float = 0.0
    constant: float | None = None
    by_chance: float | None = None
    shrinkage: Shrinkage | None = None
    spread: Spread | None = None
    q: tuple[float, ...] = ()
    paired: bool = False

    @property
    def total_df(self) -> float:
        """Degrees of freedom of score ÷ error."""
        return self.df + self.prior.df

    @property
    def ranks_by(self) -> str:
        """The column that a list is ranked by unless another is asked for."""
        return SHRUNK if self.shrinkage else SCORE

    def errors(self, errors: Floats) -> Floats:
        """Standard errors of samples, from those that the samples say of themselves."""
        if self.constant is not None:
            return np.full_like(errors, self.constant)
        moderated = self.prior.moderated(np.square(errors), self.df)
        return np.where(np.isnan(errors), np.nan, np.sqrt(moderated + self.views))

    def sql(self) -> dict[str, str]:
        """Expressions of the derived columns, over the stored ones."""
        error = shrunk = sd = "NULL::DOUBLE"
        reach = 0.0
        if self.df:
            error, reach = self._error(), self.prior.quantile(self.df, CONFIDENCE)
        if self.shrinkage is not None:
            out, score = map(_double, self.shrinkage.mean)
            by_out, by_score = map(_double, self.shrinkage.weights)
            shrunk = f"({score} + {by_out} * (cmc_out - {out}) + {by_score} * ({SCORE} - {score}))"
        if self.spread is not None:
            off = f"({shrunk} - {_double(self.spread.middle)})"
            sd = (
                f"CASE WHEN {SCORE} IS NOT NULL THEN sqrt({_double(self.spread.variance)}"
                f" + {_double(self.spread.below)} * least({off}, 0)**2"
                f" + {_double(self.spread.above)} * greatest({off}, 0)**2) END"
            )
        values = f"[{', '.join(repr(q) for q in self.q)}]::DOUBLE[]"
        return {
            ERROR: error,
            LOW: f"{SCORE} - {_double(reach)} * {error}",
            HIGH: f"{SCORE} + {_double(reach)} * {error}",
            Q: (
                # DuckDB's least and greatest pass over NULL.
                f"CASE WHEN {SCORE} / ({error}) IS NOT NULL THEN "
                f"list_extract({values}, {_bin(error)} + 1) END"
                if self.q
                else "NULL::DOUBLE"
            ),
            SHRUNK: shrunk,
            SHRUNK_SD: sd,
        }

    def _error(self) -> str:
        if self.constant is not None:
            return _where_scored(self.constant)
        own = f"coalesce({PAIR_SE}, {SE})" if self.paired else SE
        if math.isinf(self.prior.df):
            variance = f"CASE WHEN {own} IS NOT NULL THEN {_double(self.prior.variance)} END"
        else:
            known = _double(self.prior.df * self.prior.variance)
            variance = f"({known} + {_double(self.df)} * ({own})**2) / {_double(self.total_df)}"
        return f"sqrt({variance} + {_double(self.views)})"

    def as_json(self) -> dict[str, Any]:
        """For ``summary.json``; q-values as runs: first bin and value."""
        runs = [[0, self.q[0]]] if self.q else []
        for at, value in enumerate(self.q):
            if value != runs[-1][1]:
                runs.append([at, value])
        shrinkage = self.shrinkage
        return {
            "df": self.df,
            "prior": {
                "variance": self.prior.variance,
                "df": None if math.isinf(self.prior.df) else self.prior.df,
            },
            "paired": self.paired,
            "views": self.views,
            "constant": self.constant,
            "by_chance": self.by_chance,
            "shrinkage": shrinkage
            and {
                "mean": shrinkage.mean.tolist(),
                "weights": shrinkage.weights.tolist(),
                "sd": shrinkage.sd,
            },
            "spread": self.spread and asdict(self.spread),
            "q": {"lowest": _LOWEST, "width": (_HIGHEST - _LOWEST) / _BINS, "runs": runs},
            "ranks_by": self.ranks_by,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Verdict:
        """What :meth:`as_json` returned."""
        prior, shrinkage = content["prior"], content["shrinkage"]
        runs = content["q"]["runs"]
        ends = [*(at for at, _ in runs[1:]), _BINS]
        q = [value for (at, value), end in zip(runs, ends, strict=False) for _ in range(at, end)]
        return cls(
            float(content["df"]),
            VariancePrior(prior["variance"], math.inf if prior["df"] is None else prior["df"]),
            float(content["views"]),
            content["constant"],
            content["by_chance"],
            shrinkage
            and Shrinkage(
                np.array(shrinkage["mean"], float),
                np.array(shrinkage["weights"], float),
                float(shrinkage["sd"]),
            ),
            content["spread"] and Spread(**content["spread"]),
            tuple(float(value) for value in q),
            bool(content["paired"]),
        )


def _double(value: float) -> str:
    """A number in SQL; a bare one would be a decimal."""
    return f"{float(value)!r}::DOUBLE"


def _where_scored(value: float) -> str:
    return f"CASE WHEN {SCORE} IS NOT NULL THEN {_double(value)} END"


def _bin(error: str) -> str:
    """The bin of t. DuckDB takes NaN for the largest number, and there is none here."""
    width = _double((_HIGHEST - _LOWEST) / _BINS)
    place = f"floor(({SCORE} / ({error}) - {_double(_LOWEST)}) / {width})"
    return f"least(greatest({place}, 0), {_BINS - 1})::INTEGER"


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
        self._pairs = models // 2 if kind in PAIRED else 0
        self.shrinks = kind == "complementary_halves" and self._pairs > 1 and target_df is None
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
            self._shrinkage.update(paired(cmc, member, self._pairs))

    def spread(self, batches: Iterable[pa.RecordBatch]) -> Spread | None:
        """What the shrunk scores leave open: a second pass over the rows; None without such.

        Args:
            batches: Of the columns ``cmc`` and ``member``.
        """
        if self._shrinkage.count <= 2:
            return None
        second = SpreadMoments(self._shrinkage.fit_without_a_pair(self._of_views))
        for batch in batches:
            second.update(paired(lists(batch["cmc"]), lists(batch["member"]), self._pairs))
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
        )
        return replace(verdict, by_chance=_by_chance(verdict, population, self._pairs))


def paired(cmc: Floats, member: Floats, pairs: int) -> NDArray[np.float64]:
    """(N, P, 2) ``cmc_out`` and score of each pair of models; NaN where a pair has no two sides."""
    even, odd = cmc[:, 0 : 2 * pairs : 2], cmc[:, 1 : 2 * pairs : 2]
    first, second = member[:, 0 : 2 * pairs : 2], member[:, 1 : 2 * pairs : 2]
    saw = first == 1.0
    values = np.stack([np.where(saw, odd, even), np.where(saw, even - odd, odd - even)], axis=2)
    values[first == second] = np.nan
    return values


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


def _by_chance(verdict: Verdict, population: Population | None, pairs: int) -> float | None:
    """Share of held-out samples that would stand out, with the memberships of their hash."""
    if population is None or pairs < 2:
        return None
    values = paired(population.cmc, population.member.astype(float), pairs)[:, :, 1]
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return None
    errors = verdict.errors(values.std(axis=1, ddof=1) / math.sqrt(pairs))
    reach = verdict.prior.quantile(verdict.df, CONFIDENCE)
    return float((values.mean(axis=1) > reach * errors).mean())


def _with_q_values(verdict: Verdict, table: ScoreTable) -> Verdict:
    """The verdict with q-values, from one more pass over scores and errors."""
    if not verdict.df:
        return verdict
    error = verdict.sql()[ERROR]
    counted = table.query(
        f"SELECT {_bin(error)} AS bin, count(*) AS rows FROM scores "
        f"WHERE {SCORE} IS NOT NULL AND {error} > 0 GROUP BY 1",
        stored_columns(table.stored),
    )
    bins = Bins(_LOWEST, _HIGHEST, _BINS)
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


def estimate(table: ScoreTable) -> Verdict:
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
    return concluded(moments, table, stored_population(table))


def concluded(moments: VerdictMoments, table: ScoreTable, population: Population | None) -> Verdict:
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


def stored_columns(stored: Sequence[str]) -> list[str]:
    """The stored columns that the derived ones are made of."""
    return [name for name in (SCORE, SE, PAIR_SE, "cmc_out") if name in stored]
