"""What a score is worth: its error, interval, shrunk value and q-value, from all samples together.

Rows of ``scores/`` hold what one sample says of itself. What all of them say together (how far
errors of single samples can be trusted, how much of the spread is truth) is a handful of constants:
estimated in a few passes over the rows, kept in ``summary.json``, and turned into further columns
when rows are read. So nothing is written twice, and a run that got more models needs no second
scoring. How they are estimated is in :mod:`multimem_ray.results.estimate`.

    multimem_error        standard error: of models, moderated, and of views together
    multimem_low, _high   95 % interval of the score of very many models and views
    multimem_shrunk, _shrunk_sd   the score that is expected of very many models, and how surely
    multimem_q            share of false ones on the shortest list, by score ÷ error, that it is on;
                          a false one is a sample that is not memorized at all, and the error is
                          at least that of such samples

The mathematics is in :mod:`multimem_ray.verdict.moderation`, :mod:`~multimem_ray.verdict.shrinkage`
and :mod:`~multimem_ray.verdict.lists`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from multimem_ray.results.arrays import Floats
from multimem_ray.store.schema import SCORE
from multimem_ray.verdict.moderation import NOTHING_BORROWED, VariancePrior
from multimem_ray.verdict.shrinkage import Shrinkage, Spread

ERROR, LOW, HIGH, Q = "multimem_error", "multimem_low", "multimem_high", "multimem_q"
SHRUNK, SHRUNK_SD = "multimem_shrunk", "multimem_shrunk_sd"
DERIVED = (ERROR, LOW, HIGH, Q, SHRUNK, SHRUNK_SD)
"""Columns that rows get when they are read."""
SE, PAIR_SE, VIEWS = "multimem_se", "multimem_pair_se", "multimem_view_variance"
CONFIDENCE = 0.95
LOWEST, HIGHEST, BINS = -8.0, 40.0, 4_800  # of t; what lies beyond is counted with the outermost


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
        null: Like the variance of the prior, of samples that are not memorized, as held-out ones
            are; they scatter more than what was trained on. None: not known.
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
    null: float | None = None

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
            error = self._error(self.prior.variance)
            reach = self.prior.quantile(self.df, CONFIDENCE)
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
                f"CASE WHEN {SCORE} / ({self.null_error()}) IS NOT NULL THEN "
                f"list_extract({values}, {bin_of(self.null_error())} + 1) END"
                if self.q
                else "NULL::DOUBLE"
            ),
            SHRUNK: shrunk,
            SHRUNK_SD: sd,
        }

    def null_error(self) -> str:
        """The standard error that a score has if nothing is memorized, in SQL; never below its own.

        By it q-values go.
        """
        return self._error(max(self.prior.variance, self.null or 0.0))

    def _error(self, prior: float) -> str:
        if self.constant is not None:
            return _where_scored(self.constant)
        own = f"coalesce({PAIR_SE}, {SE})" if self.paired else SE
        if math.isinf(self.prior.df):
            variance = f"CASE WHEN {own} IS NOT NULL THEN {_double(prior)} END"
        else:
            known = _double(self.prior.df * prior)
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
            "null": self.null,
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
            "q": {"lowest": LOWEST, "width": (HIGHEST - LOWEST) / BINS, "runs": runs},
            "ranks_by": self.ranks_by,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Verdict:
        """What :meth:`as_json` returned.

        Raises:
            KeyError, TypeError, ValueError: It is something else.
        """
        prior, shrinkage = content["prior"], content["shrinkage"]
        runs = content["q"]["runs"]
        places = [int(at) for at, _ in runs]
        if places and (places[0] != 0 or places != sorted(set(places)) or places[-1] >= BINS):
            raise ValueError("q-values do not go from bin to bin")
        ends = [*(at for at, _ in runs[1:]), BINS]
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
            None if content.get("null") is None else float(content["null"]),
        )


def _double(value: float) -> str:
    """A number in SQL; a bare one would be a decimal."""
    return f"{float(value)!r}::DOUBLE"


def _where_scored(value: float) -> str:
    return f"CASE WHEN {SCORE} IS NOT NULL THEN {_double(value)} END"


def bin_of(error: str) -> str:
    """The bin of t. DuckDB takes NaN for the largest number, and there is none here."""
    width = _double((HIGHEST - LOWEST) / BINS)
    place = f"floor(({SCORE} / ({error}) - {_double(LOWEST)}) / {width})"
    return f"least(greatest({place}, 0), {BINS - 1})::INTEGER"


def stored_columns(stored: Sequence[str]) -> list[str]:
    """The stored columns that the derived ones are made of."""
    return [name for name in (SCORE, SE, PAIR_SE, "cmc_out") if name in stored]
