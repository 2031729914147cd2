"""Statistics of scores: moments, quantiles, correlations, histograms, AUROC.

What accumulates takes one part of the stream at a time, in memory that does not grow with it. NaN
stands for an undefined score and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasketches
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SKETCH_K = 4096
Z95 = 1.959963984540054
CURVE_POINTS = 128


class Moments:
    """Count, mean, variance and range of K columns, from those of the parts of a stream.

    Variances are kept about the running mean (Chan, Golub, LeVeque 1979), so that many
    equal-looking scores lose no digits.

    Args:
        size: K, the number of columns.
    """

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, np.int64)
        self.mean = np.zeros(size)
        self._m2 = np.zeros(size)
        self.low = np.full(size, np.inf)
        self.high = np.full(size, -np.inf)

    def merge(
        self, count: Floats, mean: Floats, variance: Floats, low: Floats, high: Floats
    ) -> None:
        """Add a part: counts, means, variances with ddof = 0 and ranges, (K,) each.

        All but the counts are NaN where a column has no value.
        """
        some = count > 0
        total = self.count + count.astype(np.int64)
        share = count / np.maximum(total, 1)
        shift = np.where(some, mean - self.mean, 0.0)
        own = np.where(some, variance, 0.0) * count
        self._m2 += own + np.square(shift) * self.count * share
        self.mean += shift * share
        self.count = total
        self.low, self.high = np.fmin(self.low, low), np.fmax(self.high, high)

    @property
    def std(self) -> Floats:
        """Standard deviation with ddof = 1, (K,); NaN below two values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 1, np.sqrt(self._m2 / (self.count - 1)), np.nan)


class QuantileSketch:
    """Quantiles of any number of scores in a fixed amount of memory.

    A KLL sketch keeps a sample of the stream whose ranks are right to within a proven error. Up to
    a few thousand values it holds all of them and is exact.

    Source: Karnin, Lang, Liberty, "Optimal quantile approximation in streams", FOCS 2016, as built
    in Apache DataSketches.

    Args:
        k: Size against accuracy; 4096 keeps about 100 kB and a rank error of 0.1 %.
    """

    def __init__(self, k: int = SKETCH_K) -> None:
        self._sketch = datasketches.kll_doubles_sketch(k)

    def update(self, values: Floats) -> None:
        """Add values; NaN stands for an undefined score and is left out."""
        kept = np.ascontiguousarray(values[~np.isnan(values)], dtype=np.float64)
        if kept.size:
            self._sketch.update(kept)

    @property
    def count(self) -> int:
        """Number of values seen."""
        return int(self._sketch.n)

    @property
    def rank_error(self) -> float:
        """Bound (99 %) of the error of a rank, as a fraction of the count; 0 while exact."""
        estimates = self._sketch.is_estimation_mode()
        return float(self._sketch.normalized_rank_error(False)) if estimates else 0.0

    def quantiles(self, fractions: Sequence[float]) -> list[float]:
        """Values below or at which these fractions (0..1) lie; [] when nothing was seen."""
        if not self.count:
            return []
        return [float(v) for v in self._sketch.get_quantiles(list(fractions), True)]

    def percentiles(self, values: Floats) -> Floats:
        """Percentage (0..100) of what was seen that is smaller, equal values counting half.

        NaN for NaN, and everywhere when nothing was seen.
        """
        result = np.full(values.shape, np.nan)
        known = ~np.isnan(values)
        if not self.count or not known.any():
            return result
        points, place = np.unique(values[known], return_inverse=True)
        below = np.array(self._sketch.get_cdf(points, False)[:-1])
        upto = np.array(self._sketch.get_cdf(points, True)[:-1])
        result[known] = (50.0 * (below + upto))[place]
        return result


class Correlation:
    """Correlations between K columns over the rows in which all are defined.

    Products are kept about the running mean, as in :class:`Moments`.

    Args:
        size: K, the number of columns.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self._mean = np.zeros(size)
        self._products = np.zeros((size, size))

    def update(self, values: Floats) -> None:
        """Add rows; ``values`` is (N, K)."""
        rows = values[~np.isnan(values).any(axis=1)]
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        centred = rows - mean
        total = self.count + len(rows)
        shift = mean - self._mean
        weight = self.count * len(rows) / total
        self._products += centred.T @ centred + weight * np.outer(shift, shift)
        self._mean += shift * (len(rows) / total)
        self.count = total

    def mean_correlation(self) -> float | None:
        """Mean of the K(K-1)/2 correlations; None below three rows or two columns."""
        size = len(self._mean)
        spread = np.sqrt(np.diag(self._products))
        if self.count < 3 or size < 2 or not spread.all():
            return None
        matrix = self._products / np.outer(spread, spread)
        return float(matrix[np.triu_indices(size, 1)].mean())


def histogram(
    counts: Mapping[int, int], finest: int, window: tuple[float, float], at_most: int
) -> dict[str, Any]:
    """At most ``at_most`` equal bins over a window, and the counts beyond it.

    Args:
        counts: How many values lie in [place * 2**finest, (place + 1) * 2**finest), by place.
        finest: Bins are never narrower than 2 to this power; wider ones are unions of these.
        window: Lowest and highest value shown.
        at_most: Most bins.

    Returns:
        ``start``, ``width``, ``counts``, ``below``, ``above``.
    """
    level, first, last = _fit(window, at_most, finest)
    shown, below, above = [0] * (last - first + 1), 0, 0
    for fine, count in counts.items():
        place = fine >> (level - finest)
        if place < first:
            below += count
        elif place > last:
            above += count
        else:
            shown[place - first] += count
    width = 2.0**level
    return {
        "start": first * width,
        "width": width,
        "counts": shown,
        "below": below,
        "above": above,
    }


def plane(
    counts: Mapping[tuple[int, int], int],
    finest: int,
    windows: tuple[tuple[float, float], tuple[float, float]],
    at_most: int,
) -> dict[str, Any]:
    """Counts on a grid of square bins over two windows; see :func:`histogram`.

    Returns:
        ``x`` and ``y`` (the lower edges of the grid), ``width``, ``counts`` as rows from low to
        high y, ``outside``.
    """
    level = max(_fit(window, at_most, finest)[0] for window in windows)
    width, shift = 2.0**level, level - finest
    left, bottom = (math.floor(low / width) for low, _ in windows)
    right, top = (math.floor(high / width) for _, high in windows)
    grid, outside = [[0] * (right - left + 1) for _ in range(top - bottom + 1)], 0
    for (x, y), count in counts.items():
        column, row = (x >> shift) - left, (y >> shift) - bottom
        if 0 <= column < len(grid[0]) and 0 <= row < len(grid):
            grid[row][column] += count
        else:
            outside += count
    return {
        "x": left * width,
        "y": bottom * width,
        "width": width,
        "counts": grid,
        "outside": outside,
    }


def auroc(planted: Bools, suspicion: Floats) -> dict[str, Any]:
    """Chance that a planted sample looks more suspicious than another one.

    The interval is DeLong's (1988), on the logit scale, so that it stays inside [0, 1] near a
    perfect score.

    Args:
        planted: (N,) the truth.
        suspicion: (N,) higher = more suspicious; no NaN.

    Returns:
        ``auroc``, ``low`` and ``high`` of the 95 % interval (None where the separation is
        perfect or a class has fewer than two samples, for then the spread is unknown); all None
        when one of the classes is empty.
    """
    if not planted.any() or planted.all():
        return {"auroc": None, "low": None, "high": None}
    value, se = delong(planted, suspicion)
    if not se or value in {0.0, 1.0}:
        return {"auroc": value, "low": None, "high": None}
    middle, spread = math.log(value / (1 - value)), Z95 * se / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-edge)) for edge in (middle - spread, middle + spread))
    return {"auroc": value, "low": low, "high": high}


def delong(planted: Bools, suspicion: Floats) -> tuple[float, float | None]:
    """AUROC and DeLong's standard error of it; None below two samples of a class."""
    hits, rest = np.sort(suspicion[planted]), np.sort(suspicion[~planted])
    of_hits, of_rest = _placements(hits, rest), _placements(rest, hits)
    if len(hits) < 2 or len(rest) < 2:
        return float(of_hits.mean()), None
    variance = of_hits.var(ddof=1) / len(hits) + of_rest.var(ddof=1) / len(rest)
    return float(of_hits.mean()), math.sqrt(variance)


def precision(planted: Bools, suspicion: Floats, ks: Iterable[int]) -> list[dict[str, Any]]:
    """Share of planted samples among the k most suspicious, with Wilson's 95 % interval.

    Equal scores keep the order of the rows. A k beyond N is left out.
    """
    hits = np.cumsum(planted[np.argsort(-suspicion, kind="stable")])
    return [
        {"k": k, "precision": float(hits[k - 1]) / k, **wilson(int(hits[k - 1]), k)}
        for k in sorted({k for k in ks if 1 <= k <= len(hits)})
    ]


def wilson(hits: int, trials: int) -> dict[str, float]:
    """Wilson's (1927) 95 % interval of a proportion."""
    low, high = wilson_ends(np.array([hits / trials]), np.array([float(trials)]))
    return {"low": float(low[0]), "high": float(high[0])}


def wilson_ends(shares: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """The ends (N,) of Wilson's 95 % intervals of proportions (N,) of so many trials (N,)."""
    square = Z95**2 / trials
    middle = (shares + square / 2) / (1 + square)
    spread = shares * (1 - shares) / trials + square / (4 * trials)
    half = Z95 / (1 + square) * np.sqrt(spread)
    return np.maximum(0.0, middle - half), np.minimum(1.0, middle + half)


def curve(planted: Bools, suspicion: Floats) -> list[list[float]]:
    """The ROC curve as at most 128 points [false positive rate, true positive rate]."""
    if not planted.any() or planted.all():
        return []
    fpr, tpr, _ = roc_curve(planted, suspicion)
    points = np.stack([fpr, tpr], axis=1)
    if len(points) > CURVE_POINTS:
        # Even steps along the curve, not along either axis: a good curve is steep, then flat.
        path = fpr + tpr
        steps = np.searchsorted(path, np.linspace(0.0, path[-1], CURVE_POINTS))
        points = points[np.unique(np.clip(steps, 0, len(points) - 1))]
    return [[round(float(x), 5), round(float(y), 5)] for x, y in points]


def _placements(values: Floats, others: Floats) -> Floats:
    """Share of sorted ``others`` below each value, equal ones counting half."""
    below = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
    return below / (2.0 * len(others))


def _fit(window: tuple[float, float], at_most: int, finest: int) -> tuple[int, int, int]:
    """The finest level that covers a window with ``at_most`` bins, and its end bins."""
    level = finest
    while True:
        first, last = (math.floor(edge / 2.0**level) for edge in window)
        if last - first < at_most:
            return level, first, last
        level += 1
