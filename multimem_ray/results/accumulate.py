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


class Grid:
    """Counts in bins whose width is a power of two, aligned at zero, in one or two dimensions.

    Where the values spread too far for ``most`` bins on an axis, neighbours are merged and the
    width doubles. That is exact: each coarser bin is the union of finer ones.

    Args:
        dimensions: Number of axes.
        most: Most bins on an axis.
        finest: Bins are never narrower than 2 to this power.
    """

    def __init__(self, dimensions: int, most: int, finest: int) -> None:
        self._most = most
        self._level = finest
        self._origin: Ints = np.zeros(dimensions, np.int64)
        self._counts: Ints = np.zeros((0,) * dimensions, np.int64)

    def add(self, points: Floats) -> None:
        """Add points, (N, dimensions); one with an undefined coordinate is left out."""
        known = points[~np.isnan(points).any(axis=1)]
        if not len(known):
            return
        index = np.floor(np.ldexp(known, -self._level)).astype(np.int64)
        low, high = index.min(axis=0), index.max(axis=0)
        if self._counts.size:
            low = np.minimum(low, self._origin)
            high = np.maximum(high, self._origin + self._counts.shape - 1)
        shift = 0
        while ((high >> shift) - (low >> shift)).max() >= self._most:
            shift += 1
        origin, counts = self.at(self._level + shift)
        low, high, index = low >> shift, high >> shift, index >> shift
        shape = tuple((high - low + 1).tolist())
        flat = np.ravel_multi_index(tuple((index - low).T), shape)
        fresh = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
        if counts.size:
            edges = zip((origin - low).tolist(), counts.shape, strict=True)
            fresh[tuple(slice(start, start + size) for start, size in edges)] += counts
        self._level, self._origin, self._counts = self._level + shift, low, fresh

    @property
    def level(self) -> int:
        """The bins are 2 to this power wide."""
        return self._level

    def at(self, level: int) -> tuple[Ints, Ints]:
        """First bin on each axis, and the counts, with bins of width 2**level or wider."""
        shift = level - self._level
        origin, counts = self._origin, self._counts
        if shift <= 0 or not counts.size:
            return origin, counts
        for axis, first in enumerate(origin.tolist()):
            place = (first + np.arange(counts.shape[axis])) >> shift
            starts = np.flatnonzero(np.diff(place, prepend=place[0] - 1))
            counts = np.add.reduceat(counts, starts, axis=axis)
        return origin >> shift, counts


class Histogram:
    """A one-dimensional :class:`Grid`."""

    def __init__(self, most: int = 4096) -> None:
        self._grid = Grid(1, most, FINEST)

    def update(self, values: Floats) -> None:
        """Add values."""
        self._grid.add(values[:, None])

    def window(self, low: float, high: float, at_most: int) -> dict[str, object] | None:
        """At most ``at_most`` equal bins over [low, high], and the counts beyond it.

        Returns:
            ``start``, ``width``, ``counts``, ``below``, ``above``; None when nothing was seen.
        """
        level, first, last = _fit(low, high, at_most, self._grid.level)
        origin, counts = self._grid.at(level)
        if not counts.size:
            return None
        place = origin[0] + np.arange(len(counts))
        inside = (place >= first) & (place <= last)
        shown = np.zeros(last - first + 1, np.int64)
        shown[place[inside] - first] = counts[inside]
        return {
            "start": first * 2.0**level,
            "width": 2.0**level,
            "counts": shown.tolist(),
            "below": int(counts[place < first].sum()),
            "above": int(counts[place > last].sum()),
        }


class Plane:
    """A two-dimensional :class:`Grid` with the same width of bins on both axes."""

    def __init__(self, most: int = 512) -> None:
        self._grid = Grid(2, most, PLANE_FINEST)

    def update(self, x: Floats, y: Floats) -> None:
        """Add points; a point with an undefined coordinate is left out."""
        self._grid.add(np.stack([x, y], axis=1))

    def window(
        self, x: tuple[float, float], y: tuple[float, float], at_most: int
    ) -> dict[str, object] | None:
        """Counts on a grid of square bins over the window; points beyond count in ``outside``.

        Returns:
            ``x`` and ``y`` (the lower edges of the grid), ``width``, ``counts`` as rows from low
            to high y, ``outside``; None when nothing was seen.
        """
        level = max(_fit(*ends, at_most, self._grid.level)[0] for ends in (x, y))
        (left, bottom), counts = self._grid.at(level)
        if not counts.size:
            return None
        width = 2.0**level
        first = [int(np.floor(ends[0] / width)) for ends in (x, y)]
        last = [int(np.floor(ends[1] / width)) for ends in (x, y)]
        columns = left + np.arange(counts.shape[0])
        rows = bottom + np.arange(counts.shape[1])
        across = (columns >= first[0]) & (columns <= last[0])
        up = (rows >= first[1]) & (rows <= last[1])
        grid = np.zeros((last[1] - first[1] + 1, last[0] - first[0] + 1), np.int64)
        inside = counts[np.ix_(across, up)]
        grid[np.ix_(rows[up] - first[1], columns[across] - first[0])] = inside.T
        return {
            "x": first[0] * width,
            "y": first[1] * width,
            "width": width,
            "counts": grid.tolist(),
            "outside": int(counts.sum() - inside.sum()),
        }


def _fit(low: float, high: float, at_most: int, finest: int) -> tuple[int, int, int]:
    """The finest level that covers [low, high] with ``at_most`` bins, and its end bins."""
    level = finest
    while True:
        first, last = (int(np.floor(edge / 2.0**level)) for edge in (low, high))
        if last - first < at_most:
            return level, first, last
        level += 1
