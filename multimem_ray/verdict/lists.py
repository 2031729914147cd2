"""Lists of samples with a known error: how many of those that are listed do not belong there.

Two questions, of which each has its null hypothesis:

- *More than nothing*: the samples whose memorization is not zero. p-values of single samples and
  the procedure of Benjamini & Hochberg 1995; the q-value of a sample is the lowest share of false
  ones among the lists that it is on.
- *More than c*: the samples of which the truth exceeds c. With the shrunk score m and its standard
  deviation, each has a probability π = Φ((c - m) / sd) that it does not; the mean of π over a list
  is the share of it that is expected to be false (Newton et al. 2004, Biostatistics 5, 155).

Both need the samples in order of one number. They are counted in bins of it, so that nothing is
sorted or held; a list ends at the edge of a bin, on the side of fewer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from multimem_ray.verdict.moderation import upper_tail

Floats = NDArray[np.float64]
BINS = 1 << 16


class Bins:
    """Samples, counted in equal bins of a number between two bounds that hold all of them.

    Args:
        low: No value lies below.
        high: No value lies above.
    """

    def __init__(self, low: float, high: float, bins: int = BINS) -> None:
        if not low <= high:
            raise ValueError(f"bins from {low} to {high}: give the lower bound first")
        width = (high - low) or 1.0
        self.edges: Floats = np.linspace(low, low + width, bins + 1)
        self.counts = np.zeros(bins, np.int64)
        self.sums = np.zeros(bins)

    def update(self, values: Floats, weights: Floats | None = None) -> None:
        """Add (N,) values, with what is summed up in each bin; those that are not finite are not
        counted.
        """
        known = np.isfinite(values)
        at = self.places(values[known])
        self.counts += np.bincount(at, minlength=len(self.counts))
        if weights is not None:
            self.sums += np.bincount(at, weights[known], minlength=len(self.counts))

    def places(self, values: Floats) -> NDArray[np.intp]:
        """(N,) the bin of each value; an edge belongs to the bin above it."""
        at = np.searchsorted(self.edges, values, side="right") - 1
        return at.clip(0, len(self.counts) - 1)


def q_values(bins: Bins, df: float) -> Floats:
    """The q-value of each bin of t = score ÷ standard error, against "no memorization".

    Args:
        bins: Of t.
        df: Degrees of freedom of t.

    Returns:
        (bins,), falling from left to right; that of a sample is its bin's, where the p-value is
        that of the lower edge and so never too low.
    """
    return false_shares(bins, upper_tail(bins.edges[:-1], df))


def false_shares(bins: Bins, p: Floats) -> Floats:
    """(bins,) the lowest expected share of false ones on the lists that a bin is on.

    Args:
        bins: Of something that falls with the p-value.
        p: (bins,) the p-value of the lower edge of each.
    """
    listed = np.cumsum(bins.counts[::-1])[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        false = np.where(listed > 0, p * bins.counts.sum() / listed, np.inf)
    # A longer list may be purer than a shorter one: of those that a sample is on, the best.
    return np.minimum(np.minimum.accumulate(false), 1.0)


def probability_below(shrunk: Floats, sd: Floats | float, bound: float) -> Floats:
    """π, (N,): the probability that the truth of a sample does not exceed the bound."""
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.asarray(ndtr((bound - shrunk) / sd), np.float64)
    return np.where(np.asarray(sd) > 0, below, (shrunk <= bound).astype(np.float64))


def threshold(bins: Bins, rate: float) -> tuple[float, int, float] | None:
    """The longest list, from the highest value down, of which at most ``rate`` is false.

    Args:
        bins: Of the shrunk score, with the sums of π.
        rate: Share that may be false, as 0.05.

    Returns:
        The lowest value on the list, how many are on it, and the share that is expected to be
        false; None where even the highest may not be listed.
    """
    listed = np.cumsum(bins.counts[::-1])[::-1]
    false = np.cumsum(bins.sums[::-1])[::-1]
    # π falls with the score, or nearly so, and the running mean rises downward.
    fits = np.flatnonzero((listed > 0) & (false <= rate * listed))
    if not len(fits):
        return None
    first = int(fits[0])
    return float(bins.edges[first]), int(listed[first]), float(false[first] / listed[first])
