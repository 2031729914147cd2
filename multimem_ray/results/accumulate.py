"""Statistics over a stream of batches: moments, histograms, a plane, correlations.

Each accumulator takes one batch of numbers at a time, in memory that does not grow with the
stream. NaN stands for an undefined score and is left out. Moments and products are kept about
the running mean (Chan, Golub, LeVeque 1979), so that many equal-looking scores lose no digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FINEST = -12  # bins are never narrower than 2**-12 of a score
PLANE_FINEST = -8


class Moments:
    """Count, mean, variance and range of K columns at once.

    Args:
        size: K, the number of columns.
    """

    def __init__(self, size: int) -> None:
        self.count = np.zeros(size, np.int64)
        self.mean = np.zeros(size)
        self._m2 = np.zeros(size)
        self.low = np.full(size, np.inf)
        self.high = np.full(size, -np.inf)

    def update(self, values: Floats) -> None:
        """Add rows; ``values`` is (N, K)."""
        known = ~np.isnan(values)
        count = known.sum(axis=0)
        safe = np.maximum(count, 1)
        mean = np.where(known, values, 0.0).sum(axis=0) / safe
        m2 = np.square(np.where(known, values - mean, 0.0)).sum(axis=0)
        total = self.count + count
        shift = np.where(count > 0, mean - self.mean, 0.0)
        share = count / np.maximum(total, 1)
        self._m2 += m2 + np.square(shift) * self.count * share
        self.mean += shift * share
        self.count = total
        if len(values):
            self.low = np.minimum(self.low, np.where(known, values, np.inf).min(axis=0))
            self.high = np.maximum(self.high, np.where(known, values, -np.inf).max(axis=0))

    @property
    def std(self) -> Floats:
        """Standard deviation with ddof = 1, (K,); NaN below two values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 1, np.sqrt(self._m2 / (self.count - 1)), np.nan)


class Correlation:
    """Correlations between K columns over the rows in which all are defined.

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


class Histogram:
    """Counts in bins whose width is a power of two, aligned at zero.

    Where the values spread too far for ``most`` bins, neighbours are merged and the width
    doubles. That is exact: each coarser bin is the union of two finer ones.
    """

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._level = FINEST
        self._counts: dict[int, int] = {}

    def update(self, values: Floats) -> None:
        """Add values."""
        index = _bins(values[~np.isnan(values)], self._level)
        bins, counts = np.unique(index, return_counts=True)
        for position, count in zip(bins.tolist(), counts.tolist(), strict=True):
            self._counts[position] = self._counts.get(position, 0) + count
        while self._counts and max(self._counts) - min(self._counts) >= self._most:
            self._counts = _halve(self._counts)
            self._level += 1

    def window(self, low: float, high: float, at_most: int) -> dict[str, object] | None:
        """At most ``at_most`` equal bins over [low, high], and the counts beyond it.

        Returns:
            ``start``, ``width``, ``counts``, ``below``, ``above``; None when nothing was seen.
        """
        if not self._counts:
            return None
        level, first, last = _fit(low, high, at_most, self._level)
        counts = np.zeros(last - first + 1, np.int64)
        below = above = 0
        for position, count in self._counts.items():
            coarse = (position >> (level - self._level)) - first
            if coarse < 0:
                below += count
            elif coarse >= len(counts):
                above += count
            else:
                counts[coarse] += count
        width = 2.0**level
        return {
            "start": first * width,
            "width": width,
            "counts": counts.tolist(),
            "below": below,
            "above": above,
        }


class Plane:
    """A two-dimensional histogram with the same kind of bins on each axis."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._level = PLANE_FINEST
        self._counts: dict[tuple[int, int], int] = {}

    def update(self, x: Floats, y: Floats) -> None:
        """Add points; a point with an undefined coordinate is left out."""
        known = ~(np.isnan(x) | np.isnan(y))
        index = np.stack([_bins(x[known], self._level), _bins(y[known], self._level)], axis=1)
        bins, counts = np.unique(index, axis=0, return_counts=True)
        for (a, b), count in zip(bins.tolist(), counts.tolist(), strict=True):
            self._counts[a, b] = self._counts.get((a, b), 0) + count
        while self._counts and self._span() >= self._most:
            merged: dict[tuple[int, int], int] = {}
            for (a, b), count in self._counts.items():
                merged[a >> 1, b >> 1] = merged.get((a >> 1, b >> 1), 0) + count
            self._counts, self._level = merged, self._level + 1

    def window(
        self, x: tuple[float, float], y: tuple[float, float], at_most: int
    ) -> dict[str, object] | None:
        """Counts on a grid of square bins over the window; points beyond count in ``outside``.

        Returns:
            ``x`` and ``y`` (the lower edges of the grid), ``width``, ``counts`` as rows from low
            to high y, ``outside``; None when nothing was seen.
        """
        if not self._counts:
            return None
        level = max(_fit(*x, at_most, self._level)[0], _fit(*y, at_most, self._level)[0])
        width = 2.0**level
        left, right = (int(np.floor(edge / width)) for edge in x)
        bottom, top = (int(np.floor(edge / width)) for edge in y)
        grid = np.zeros((top - bottom + 1, right - left + 1), np.int64)
        outside = 0
        for (a, b), count in self._counts.items():
            column = (a >> (level - self._level)) - left
            row = (b >> (level - self._level)) - bottom
            if 0 <= column < grid.shape[1] and 0 <= row < grid.shape[0]:
                grid[row, column] += count
            else:
                outside += count
        return {
            "x": left * width,
            "y": bottom * width,
            "width": width,
            "counts": grid.tolist(),
            "outside": outside,
        }

    def _span(self) -> int:
        xs, ys = zip(*self._counts, strict=True)
        return int(max(max(xs) - min(xs), max(ys) - min(ys)))


def _bins(values: Floats, level: int) -> Ints:
    return np.floor(np.ldexp(values, -level)).astype(np.int64)


def _halve(counts: dict[int, int]) -> dict[int, int]:
    merged: dict[int, int] = {}
    for position, count in counts.items():
        merged[position >> 1] = merged.get(position >> 1, 0) + count
    return merged


def _fit(low: float, high: float, at_most: int, finest: int) -> tuple[int, int, int]:
    """The finest level that covers [low, high] with ``at_most`` bins, and its end bins."""
    level = finest
    while True:
        first, last = (int(np.floor(edge / 2.0**level)) for edge in (low, high))
        if last - first < at_most:
            return level, first, last
        level += 1
