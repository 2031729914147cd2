"""Everything about a run that fits on a page, from one pass over its scores.

The result is plain JSON: written as ``summary.json``, drawn by the report, printed by the
command line. Each part is gathered by an accumulator that keeps a fixed amount of memory, so the
pass costs the same on a laptop and over a billion rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats  # type: ignore[import-untyped]

from multimem_ray.results.accumulate import Floats, Histogram, Moments, Plane
from multimem_ray.results.arrays import floats, lists
from multimem_ray.results.coverage import coverage
from multimem_ray.results.groups import GroupMeans, ModalitySets, ModelLevels
from multimem_ray.results.planted import evaluate_planted
from multimem_ray.results.quantiles import QuantileSketch
from multimem_ray.results.reader import Progress, ScoreTable
from multimem_ray.results.reliability import Reliability
from multimem_ray.storage import Storage
from multimem_ray.store.schema import ATTRIBUTION, PAIR

SCORES = ("multimem", "multimem_normalized", "multimem_se", "cmc_in", "cmc_out")
FRACTIONS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
HISTOGRAM_BINS, PLANE_BINS = 64, 48


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
        standard error), ``noise``, ``reliability``, ``planted``. Undefined values are None.

    Raises:
        StorageError: A file of the run cannot be read.
        ConfigError: The truth does not fit the run.
    """
    table = output if isinstance(output, ScoreTable) else ScoreTable(output, storage or Storage())
    run = table.document("run.json")
    design = dict((run.get("config") or {}).get("design") or {})
    kind = str(design.get("kind", "complementary_halves"))
    part = _Pass(table, kind, targeted=bool(design.get("target")))
    for batch in table.batches(part.columns, progress=progress):
        part.update(batch)
    held_out = table.document("held_out", "held_out.json")
    result = {
        "coverage": coverage(table, run, part.rows),
        "design": design | {"models": part.references or design.get("models")},
        **part.result(held_out),
        "target": _target(design, held_out),
        "planted": evaluate_planted(table, planted) if planted else None,
    }
    plain: dict[str, Any] = _plain(result)
    return plain


class _Pass:
    """All accumulators of the streaming pass, fed batch by batch."""

    def __init__(self, table: ScoreTable, kind: str, *, targeted: bool) -> None:
        known = set(table.columns)
        self.rows = 0
        self.modalities, self.pairs = table.modalities, table.pairs
        self.scores = [c for c in SCORES if c in known]
        self.parts = [f"{ATTRIBUTION}{m}" for m in self.modalities]
        self.pair_columns = [f"{PAIR}{a}_{b}" for a, b in self.pairs]
        self.numbers = [*self.scores, *self.parts, *self.pair_columns]
        others = ("label", "split", "modalities", "n_in", "n_out", "cmc", "member")
        self.columns = [*self.numbers, *(c for c in others if c in known)]
        self.moments = Moments(len(self.numbers))
        self.standing_out = Moments(len(self.parts))
        self.sketches = {c: QuantileSketch() for c in self.scores}
        self.histograms = {c: Histogram() for c in self.scores}
        self.plane = Plane()
        self.labels, self.splits = GroupMeans(), GroupMeans()
        self.sets = ModalitySets()
        self.levels = ModelLevels()
        self.reliability: Reliability | None = None
        self.kind, self.targeted = kind, targeted
        self.noise = _Noise(table.document("held_out", "held_out.json") if targeted else None)

    @property
    def references(self) -> int:
        """Number of reference models; 0 before the first row."""
        return max(0, self.levels.size - self.targeted)

    def update(self, batch: pa.RecordBatch) -> None:
        """Add one batch."""
        self.rows += batch.num_rows
        values = {c: floats(batch[c]) for c in self.numbers}
        matrix = np.stack(list(values.values()), axis=1)
        self.moments.update(matrix)
        for column in self.scores:
            self.sketches[column].update(values[column])
            self.histograms[column].update(values[column])
        self.plane.update(values["cmc_out"], values["cmc_in"])
        beyond = self.noise.update(values, _counts(batch, "n_in"), _counts(batch, "n_out"))
        first = len(self.scores)
        self.standing_out.update(matrix[beyond, first : first + len(self.parts)])
        names = set(batch.schema.names)
        for column, groups in (("label", self.labels), ("split", self.splits)):
            if column in names:
                groups.update(batch[column], values["multimem"], values["cmc_out"])
        self.sets.update(batch["modalities"])
        self._models(batch)

    def _models(self, batch: pa.RecordBatch) -> None:
        cmc, member = lists(batch["cmc"]), lists(batch["member"])
        if not cmc.shape[1]:
            return
        if self.reliability is None:
            references = cmc.shape[1] - self.targeted
            self.reliability = Reliability(self.kind, references, targeted=self.targeted)
        self.levels.update(cmc, member)
        splits = batch["split"].to_pylist() if "split" in batch.schema.names else None
        self.reliability.update(cmc, member, splits)

    def result(self, held_out: dict[str, Any]) -> dict[str, Any]:
        """The summary of what was seen."""
        means = dict(zip(self.numbers, self.moments.mean, strict=True))
        stds = dict(zip(self.numbers, self.moments.std, strict=True))
        counts = dict(zip(self.numbers, self.moments.count, strict=True))
        stand = dict(zip(self.parts, self.standing_out.mean, strict=True))
        some = bool(self.standing_out.count.any())
        attribution = [
            {
                "modality": m,
                "mean": means[c] if counts[c] else None,
                "std": stds[c],
                "count": counts[c],
                "mean_standing_out": stand[c] if some else None,
            }
            for m, c in zip(self.modalities, self.parts, strict=True)
        ]
        attribution.sort(key=lambda row: -np.inf if row["mean"] is None else -row["mean"])
        return {
            "modalities": {"names": list(self.modalities), **self.sets.result()},
            "scores": {c: self._score(i, c) for i, c in enumerate(self.scores)},
            "histograms": {c: self._histogram(c) for c in self.scores},
            "plane": self._plane(),
            "attribution": attribution,
            "pairs": [
                {"pair": list(p), "mean": means[c], "std": stds[c], "count": counts[c]}
                for p, c in zip(self.pairs, self.pair_columns, strict=True)
                if counts[c]
            ],
            "labels": self.labels.result(),
            "splits": self.splits.result()["groups"],
            "models": self.levels.result(held_out),
            "held_out": {k: v for k, v in held_out.items() if k not in {"models", "target"}},
            "noise": self.noise.result(),
            "reliability": self.reliability.result() if self.reliability else None,
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
        if window is None:
            return None
        return self.histograms[column].window(*window, HISTOGRAM_BINS)

    def _plane(self) -> dict[str, Any] | None:
        x, y = self._window("cmc_out"), self._window("cmc_in")
        return None if x is None or y is None else self.plane.window(x, y, PLANE_BINS)

    def _window(self, column: str) -> tuple[float, float] | None:
        """All values, or all but the outermost permille where those lie far out."""
        sketch = self.sketches.get(column)
        if sketch is None or not sketch.count:
            return None
        low, inner_low, inner_high, high = sketch.quantiles((0.0, 0.001, 0.999, 1.0))
        reach = 0.5 * (inner_high - inner_low)
        return max(low, inner_low - reach), min(high, inner_high + reach)


class _Noise:
    """Standard errors, and how many scores stand out from theirs.

    Args:
        of_target: ``held_out.json``, where standard errors rest on the held-out samples.

    """

    def __init__(self, of_target: Mapping[str, Any] | None = None) -> None:
        self._freedom = None if of_target is None else max(1, int(of_target["samples"]) - 1)
        self._count = self._above = self._below = 0
        self._expected = self._se = 0.0

    def update(
        self, values: dict[str, Floats], n_in: Floats, n_out: Floats
    ) -> np.ndarray[Any, Any]:
        """Add rows; returns the mask of those more than two standard errors above zero."""
        score, se = values["multimem"], values["multimem_se"]
        known = ~(np.isnan(score) | np.isnan(se))
        with np.errstate(invalid="ignore"):
            above = known & (score > 2 * se)
            below = known & (score < -2 * se)
        self._count += int(known.sum())
        self._above += int(above.sum())
        self._below += int(below.sum())
        self._se += float(se[known].sum())
        # With the same number of models on each side and equal spread the quotient of score and
        # standard error is t-distributed with n_in + n_out - 2 degrees of freedom.
        freedom = np.maximum((n_in + n_out - 2)[known], 1)
        if self._freedom is not None:
            freedom = np.full_like(freedom, self._freedom)
        degrees, rows = np.unique(freedom, return_counts=True)
        self._expected += float((stats.t.sf(2.0, degrees) * rows).sum())
        return np.asarray(above)

    def result(self) -> dict[str, Any]:
        """Mean standard error; shares above and below two of them, and that of pure chance."""
        if not self._count:
            return dict.fromkeys(("mean_se", "above", "below", "by_chance")) | {"count": 0}
        return {
            "count": self._count,
            "mean_se": self._se / self._count,
            "above": self._above / self._count,
            "below": self._below / self._count,
            "by_chance": self._expected / self._count,
        }


def _target(design: dict[str, Any], held_out: dict[str, Any]) -> dict[str, Any] | None:
    """What was audited against the references, and the gap that was subtracted."""
    target = design.get("target")
    if not target:
        return None
    known = held_out.get("target") or {"gap": None, "gap_se": None}
    return {**target, **known, "held_out": held_out.get("samples")}


def _counts(batch: pa.RecordBatch, column: str) -> Floats:
    return np.nan_to_num(floats(batch[column]), nan=0.0)


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
