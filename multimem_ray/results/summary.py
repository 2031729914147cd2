"""Everything about a run that fits on a page, from one pass over its scores.

The result is plain JSON: written as ``summary.json``, drawn by the report, printed by the
command line. The scores come in parts of a few hundred thousand rows; DuckDB aggregates each, and
what the parts give is added up. So memory is bounded, and an object store is read once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from multimem_ray.results.arrays import floats, lists
from multimem_ray.results.attack import Attack
from multimem_ray.results.coverage import coverage
from multimem_ray.results.duplicates import duplicates
from multimem_ray.results.estimate import VerdictMoments, concluded, moments_of
from multimem_ray.results.growth import NAME as GROWTH
from multimem_ray.results.planted import evaluate_planted
from multimem_ray.results.population import stored_population
from multimem_ray.results.reliability import Reliability
from multimem_ray.results.statistics import Floats, Moments, QuantileSketch, histogram, plane
from multimem_ray.results.table import Progress, ScoreTable, open_engine
from multimem_ray.results.top import quoted
from multimem_ray.results.verdict import (
    CONFIDENCE,
    ERROR,
    HIGH,
    LOW,
    PAIR_SE,
    SE,
    VIEWS,
    Q,
    Verdict,
)
from multimem_ray.storage import Storage
from multimem_ray.store.schema import ATTRIBUTION, PAIR

PART_ROWS = 1 << 18
SCORES = ("multimem", "multimem_normalized", "multimem_se", "cmc_in", "cmc_out")
FRACTIONS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
HISTOGRAM_BINS, PLANE_BINS = 64, 48
FINEST, PLANE_FINEST = -12, -8  # bins are counted 2 to this power wide, and merged when shown
MOST_GROUPS = 10_000  # further labels are counted together: a free text is not a label
SHOWN_GROUPS = 200
LISTED = (0.01, 0.05, 0.1)  # q-values up to which samples are counted
_SEPARATOR = "\x1f"
Ask = Callable[[str, str], list[tuple[Any, ...]]]
"""What to select from the scores, and the rest of the query; gives rows."""


def summarize(
    output: str | ScoreTable,
    storage: Storage | None = None,
    *,
    planted: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Summarize a run.

    Args:
        output: Folder or ``s3://`` prefix of the run, or its opened table.
        storage: How to reach it; the local disk by default, unused with a table.
        planted: Parquet with the truth about planted misalignment, if there is one.
        progress: Called with (files done, files in total).

    Returns:
        ``coverage``, ``design``, ``modalities`` (names, how many samples have which),
        ``scores`` (count, mean, std, min, max, quantiles per column), ``histograms``, ``plane``
        (x: cmc_out, y: cmc_in), ``attribution`` (modalities ranked by mean share of MultiMem),
        ``pairs``, ``labels``, ``splits``, ``models`` (mean consistency on members, others and
        the held-out set), ``target`` (its gap to the references on the held-out set, with the
        standard error), ``noise``, ``reliability``, ``growth`` (see
        :func:`multimem_ray.results.growth.grow`; None unless models were added), ``blend`` (see
        :func:`multimem_ray.results.blend.write_blend`; None without proxies), ``planted``,
        ``duplicates`` (see :func:`~multimem_ray.results.duplicates.duplicates`), ``attack`` (see
        :meth:`~multimem_ray.results.attack.Attack.result`). Undefined values are None.

    Raises:
        StorageError: A file of the run cannot be read.
        ConfigError: The truth does not fit the run.
    """
    table = output if isinstance(output, ScoreTable) else ScoreTable(output, storage or Storage())
    run = table.document("run.json")
    design = dict((run.get("config") or {}).get("design") or {})
    kind = str(design.get("kind", "complementary_halves"))
    held_out = table.document("held_out", "held_out.json")
    totals = _Totals(table, kind, design, held_out)
    with open_engine() as engine:
        for rows in _parts(table.batches(totals.columns, progress=progress)):
            totals.update(engine, rows)
    population = stored_population(table.output, table.storage)
    verdict = Verdict()
    if totals.verdict is not None:
        verdict = concluded(totals.verdict, table, population)
    table.verdict = verdict  # what the summary of before says may be of other rows
    copies = duplicates(table, run)
    if copies and copies["groups"]:
        totals.attack.merge_groups(table)
    result = {
        "coverage": coverage(table, run, totals.rows),
        "design": design | {"models": totals.references or design.get("models")},
        **totals.result(held_out, _noise(table, table.modalities, verdict)),
        "verdict": {"of": table.version, **verdict.as_json()},
        "growth": table.document(GROWTH) if design.get("max_models") else None,
        "blend": table.blend,
        "target": _target(design, held_out),
        "duplicates": copies,
        "attack": totals.attack.result(population),
        "planted": evaluate_planted(table, planted) if planted else None,
    }
    plain: dict[str, Any] = _plain(result)
    return plain


class _Totals:
    """What the parts of a run add up to.

    Args:
        table: The scores.
        kind: Kind of the membership design.
        design: Section ``design`` of the configuration.
        held_out: ``held_out.json``.
    """

    def __init__(
        self,
        table: ScoreTable,
        kind: str,
        design: Mapping[str, Any],
        held_out: Mapping[str, Any],
    ) -> None:
        known = set(table.columns)
        self.rows = 0
        self.modalities, self.pairs = table.modalities, table.pairs
        self.scores = [c for c in SCORES if c in known]
        self.parts = [f"{ATTRIBUTION}{m}" for m in self.modalities]
        self.pair_columns = [f"{PAIR}{a}_{b}" for a, b in self.pairs]
        self.numbers = [*self.scores, *self.parts, *self.pair_columns]
        self.groups = [c for c in ("label", "split") if c in known]
        others = (*self.groups, "modalities", PAIR_SE, VIEWS, "cmc", "member")
        self.columns = [*self.numbers, *(c for c in others if c in known)]
        self.moments = Moments(len(self.numbers))
        self.sketches = {c: QuantileSketch() for c in self.scores}
        self.bins: dict[str, Counter[int]] = {c: Counter() for c in self.scores}
        self.plane: Counter[tuple[int, int]] = Counter()
        self.by_group = {c: _Groups() for c in ("label", "split")}
        self.sets: Counter[str] = Counter()
        self._design, self._held_out = design, held_out
        self.verdict: VerdictMoments | None = None
        self.models = _Models(kind, targeted=bool(design.get("target")))
        self.attack = Attack(kind, targeted=bool(design.get("target")))

    @property
    def references(self) -> int:
        """Number of reference models; 0 before the first row."""
        return self.models.references

    def update(self, engine: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
        """Add a part."""
        engine.register("scores", rows)

        def ask(select: str, rest: str = "") -> list[tuple[Any, ...]]:
            answer: list[tuple[Any, ...]] = engine.sql(
                f"SELECT {select} FROM scores {rest}"
            ).fetchall()
            return answer

        self.rows += rows.num_rows
        self.moments.merge(*_moments(ask, self.numbers))
        for column in self.scores:
            self.sketches[column].update(floats(rows[column]))
            _count(self.bins[column], ask(*_bins(FINEST, column)))
        _count(self.plane, ask(*_bins(PLANE_FINEST, "cmc_out", "cmc_in")))
        for column in self.groups:
            self.by_group[column].update(
                ask(
                    f"{column}, count(*) AS rows, count(multimem), coalesce(sum(multimem), 0), "
                    "coalesce(sum(multimem * multimem), 0), count(cmc_out), "
                    "coalesce(sum(cmc_out), 0)",
                    f"WHERE {column} IS NOT NULL GROUP BY {column} ORDER BY rows DESC, {column}",
                )
            )
        names = f"coalesce(array_to_string(modalities, '{_SEPARATOR}'), '')"
        _count(self.sets, ask(f"{names}, count(*)", "GROUP BY ALL"))
        for batch in rows.to_batches(max_chunksize=1 << 16):
            cmc, member = lists(batch["cmc"]), lists(batch["member"])
            self.models.update(batch, cmc, member)
            self.attack.update(cmc, member)
            self._add_to_verdict(batch, cmc, member)

    def _add_to_verdict(self, batch: pa.RecordBatch, cmc: Floats, member: Floats) -> None:
        if SE not in self.columns or not cmc.shape[1]:
            return
        if self.verdict is None:
            self.verdict = moments_of(
                self._design, self._held_out, cmc.shape[1], own=PAIR_SE in self.columns
            )
        self.verdict.add(batch, cmc, member)

    def result(self, held_out: Mapping[str, Any], noise: Mapping[str, Any]) -> dict[str, Any]:
        """The summary of what was seen; ``noise`` is what :func:`_noise` tells."""
        means = dict(zip(self.numbers, self.moments.mean, strict=True))
        stds = dict(zip(self.numbers, self.moments.std, strict=True))
        counts = dict(zip(self.numbers, self.moments.count, strict=True))
        stand = noise["attribution"]
        attribution = [
            {
                "modality": m,
                "mean": means[c] if counts[c] else None,
                "std": stds[c],
                "count": counts[c],
                "mean_standing_out": stand.get(m),
            }
            for m, c in zip(self.modalities, self.parts, strict=True)
        ]
        attribution.sort(key=lambda row: -np.inf if row["mean"] is None else -row["mean"])
        return {
            "modalities": {"names": list(self.modalities), **_sets(self.sets)},
            "scores": {c: self._score(i, c) for i, c in enumerate(self.scores)},
            "histograms": {c: self._histogram(c) for c in self.scores},
            "plane": self._plane(),
            "attribution": attribution,
            "pairs": [
                {"pair": list(p), "mean": means[c], "std": stds[c], "count": counts[c]}
                for p, c in zip(self.pairs, self.pair_columns, strict=True)
                if counts[c]
            ],
            "labels": self.by_group["label"].result(),
            "splits": self.by_group["split"].result()["groups"],
            "models": self.models.levels(held_out),
            "held_out": {k: v for k, v in held_out.items() if k not in {"models", "target"}},
            "noise": {k: v for k, v in noise.items() if k != "attribution"},
            "reliability": self.models.reliability and self.models.reliability.result(),
        }

    def _score(self, place: int, column: str) -> dict[str, Any]:
        sketch = self.sketches[column]
        values = sketch.quantiles(FRACTIONS)
        seen = sketch.count > 0
        return {
            "count": sketch.count,
            "mean": self.moments.mean[place] if seen else None,
            "std": self.moments.std[place],
            "min": self.moments.low[place] if seen else None,
            "max": self.moments.high[place] if seen else None,
            "quantiles": {str(f): v for f, v in zip(FRACTIONS, values, strict=False)},
            "rank_error": sketch.rank_error,
        }

    def _histogram(self, column: str) -> dict[str, Any] | None:
        window = self._window(column)
        return window and histogram(self.bins[column], FINEST, window, HISTOGRAM_BINS)

    def _plane(self) -> dict[str, Any] | None:
        x, y = self._window("cmc_out"), self._window("cmc_in")
        if x is None or y is None:
            return None
        return plane(self.plane, PLANE_FINEST, (x, y), PLANE_BINS)

    def _window(self, column: str) -> tuple[float, float] | None:
        """All values, or all but the outermost permille where those lie far out."""
        sketch = self.sketches.get(column)
        if sketch is None or not sketch.count:
            return None
        low, inner_low, inner_high, high = sketch.quantiles((0.0, 0.001, 0.999, 1.0))
        reach = 0.5 * (inner_high - inner_low)
        return max(low, inner_low - reach), min(high, inner_high + reach)


class _Groups:
    """Mean MultiMem and mean out-of-sample consistency by the value of a text column."""

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}
        self._other = 0

    def update(self, rows: list[tuple[Any, ...]]) -> None:
        """Add a part: name, rows; count, sum and sum of squares of MultiMem; count and sum."""
        for name, *sums in rows:
            if name not in self._sums and len(self._sums) >= MOST_GROUPS:
                self._other += sums[0]
            else:
                self._sums[name] = self._sums.get(name, 0.0) + np.array(sums, float)

    def result(self) -> dict[str, Any]:
        """``total`` groups, ``other`` rows beyond the limit, and the largest ``groups``.

        Groups come by mean MultiMem, highest first; each with count, mean, standard error of the
        mean over samples, and mean ``cmc_out``.
        """
        rows = [_group(name, *sums.tolist()) for name, sums in self._sums.items()]
        rows.sort(key=lambda row: (-row["count"], row["group"]))
        shown = rows[:SHOWN_GROUPS]
        shown.sort(key=lambda row: (-(row["multimem"] or 0.0), row["group"]))
        return {"total": len(rows), "other": self._other, "groups": shown}


def _noise(table: ScoreTable, modalities: Sequence[str], verdict: Verdict) -> dict[str, Any]:
    """Errors, how many intervals lie above and below zero, and how many would by chance.

    ``lists`` tells how many samples have a q-value up to some; ``attribution`` is the mean share of
    each modality over the samples whose interval lies above zero.
    """
    nothing = dict.fromkeys(("mean_se", "above", "below", "by_chance")) | {
        "count": 0,
        "lists": [],
        "attribution": {},
    }
    if not verdict.df or not table.score_files:
        return nothing
    parts = {m: quoted(f"{ATTRIBUTION}{m}") for m in modalities}
    means = [f"avg({c}) FILTER ({LOW} > 0) AS part_{i}" for i, c in enumerate(parts.values())]
    counts = [f"count(*) FILTER ({Q} <= {q}) AS listed_{i}" for i, q in enumerate(LISTED)]
    told = [
        "count(*) AS rows",
        f"avg({ERROR}) AS error",
        f"count(*) FILTER ({LOW} > 0) AS above",
        f"count(*) FILTER ({HIGH} < 0) AS below",
    ]
    columns = [ERROR, LOW, HIGH, Q, *(f"{ATTRIBUTION}{m}" for m in modalities)]
    query = f"SELECT {', '.join(told + means + counts)} FROM scores WHERE {ERROR} IS NOT NULL"
    (row,) = table.query(query, columns)
    if not row["rows"]:
        return nothing
    chance = (1 - CONFIDENCE) / 2 if verdict.by_chance is None else verdict.by_chance
    return {
        "count": row["rows"],
        "mean_se": row["error"],
        "above": row["above"] / row["rows"],
        "below": row["below"] / row["rows"],
        "by_chance": chance,
        "measured": verdict.by_chance is not None,
        "lists": [{"q": q, "count": row[f"listed_{i}"]} for i, q in enumerate(LISTED)],
        "attribution": {m: row[f"part_{i}"] for i, m in enumerate(parts)},
    }


class _Models:
    """Each model on samples that it trained on and on others, and how far pairs of them agree."""

    def __init__(self, kind: str, *, targeted: bool) -> None:
        self._kind, self._targeted = kind, targeted
        self.reliability: Reliability | None = None
        self._sums = np.zeros((2, 2, 0))  # members and others; count and sum; models

    @property
    def references(self) -> int:
        """Number of reference models; 0 before the first row."""
        return max(0, self._sums.shape[2] - self._targeted)

    def update(self, batch: pa.RecordBatch, cmc: Floats, member: Floats) -> None:
        """Add rows, with their lists of models."""
        if not cmc.shape[1]:
            return
        if self.reliability is None:
            self._sums = np.zeros((2, 2, cmc.shape[1]))
            self.reliability = Reliability(self._kind, self.references, targeted=self._targeted)
        known, values = ~np.isnan(cmc), np.nan_to_num(cmc)
        for side, here in enumerate((known & (member == 1.0), known & (member == 0.0))):
            self._sums[side] += here.sum(axis=0), np.einsum("nm,nm->m", here, values)
        splits = batch["split"].to_pylist() if "split" in batch.schema.names else None
        self.reliability.update(cmc, member, splits)

    def levels(self, held_out: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Mean consistency of each model on members, others, and the held-out set.

        ``level_gap`` is the level on the held-out set, which no model saw, minus its mean over the
        models: what a comparison of means between models must subtract, and what a ranking within
        the run can ignore.
        """
        size = self._sums.shape[2]
        seen = held_out.get("models") or {}
        levels = {name: value.get("cmc_mean") for name, value in seen.items()}
        known = [level for level in levels.values() if level is not None]
        middle = sum(known) / len(known) if known else None
        names = list(seen) if len(seen) == size else [f"{n:03d}" for n in range(size)]
        rows = []
        for name, (members, others) in zip(names, self._sums.transpose(2, 0, 1), strict=True):
            level = levels.get(name)
            rows.append(
                {
                    "model": name,
                    "members": members[1] / members[0] if members[0] else None,
                    "member_count": int(members[0]),
                    "others": others[1] / others[0] if others[0] else None,
                    "other_count": int(others[0]),
                    "held_out": level,
                    "held_out_se": (seen.get(name) or {}).get("cmc_se"),
                    "level_gap": None if level is None or middle is None else level - middle,
                }
            )
        return rows


def _parts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of at least ``PART_ROWS`` rows but for the last, so that a query is worth its cost."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= PART_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting)


def _moments(ask: Ask, columns: list[str], rest: str = "") -> Floats:
    """Count, mean, variance, lowest and highest of columns, (5, K), NaN where undefined."""
    if not columns:
        return np.empty((5, 0))
    shown = ("count({0})", "avg({0})", "var_pop({0})", "min({0})", "max({0})")
    (row,) = ask(", ".join(one.format(quoted(c)) for one in shown for c in columns), rest)
    return np.array(row, float).reshape(5, len(columns))


def _bins(finest: int, *columns: str) -> tuple[str, str]:
    """A query for how many rows lie in which bin, 2**finest wide."""
    places = ", ".join(f"floor({quoted(c)} * {2.0**-finest})::BIGINT" for c in columns)
    known = " AND ".join(f"isfinite({quoted(c)})" for c in columns)
    return f"{places}, count(*)", f"WHERE {known} GROUP BY ALL"


def _count(counts: Counter[Any], rows: list[tuple[Any, ...]]) -> None:
    """Add rows of places and counts."""
    for *place, count in rows:
        counts[place[0] if len(place) == 1 else tuple(place)] += count


def _sets(counts: Counter[str]) -> dict[str, Any]:
    """``present``: samples per modality; ``sets``: samples per combination, most frequent first."""
    present: Counter[str] = Counter()
    for joined, count in counts.items():
        for name in joined.split(_SEPARATOR):
            present[name] += count
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    sets = [{"modalities": joined.split(_SEPARATOR), "count": count} for joined, count in ordered]
    return {"present": dict(sorted(present.items())), "sets": sets}


def _group(
    name: str, count: float, n: float, total: float, squares: float, n_out: float, out: float
) -> dict[str, Any]:
    mean = total / n if n else None
    spread = max(0.0, squares / n - (total / n) ** 2) if n else 0.0
    return {
        "group": name,
        "count": int(count),
        "multimem": mean,
        "multimem_se": (spread / (n - 1)) ** 0.5 if n > 1 else None,
        "cmc_out": out / n_out if n_out else None,
    }


def _target(design: dict[str, Any], held_out: dict[str, Any]) -> dict[str, Any] | None:
    """What was audited against the references, and the gap that was subtracted."""
    target = design.get("target")
    if not target:
        return None
    known = held_out.get("target") or {"gap": None, "gap_se": None}
    return {**target, **known, "held_out": held_out.get("samples")}


def _plain(value: Any) -> Any:
    """JSON values only: NumPy numbers become Python's, NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
