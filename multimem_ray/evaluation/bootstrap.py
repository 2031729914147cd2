"""Means with bootstrap confidence intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over samples.

    Attributes:
        value: The mean.
        low, high: 95 % interval by the percentile bootstrap over samples (Efron 1979).
        se: Standard deviation of the bootstrapped means.
        samples: How many values went in.
    """

    value: float
    low: float
    high: float
    se: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def bootstrap_mean(values: NDArray[np.float64], seed: int = 0, draws: int = DRAWS) -> Estimate:
    """Mean of (N,) values and its interval, the same for the same seed.

    Raises:
        ValueError: There are no values.
    """
    count = len(values)
    if not count:
        raise ValueError("no values to average")
    rng = np.random.default_rng(seed)
    # Equal values are drawn together: a multinomial over the distinct ones costs the same for ten
    # samples and for a million, and hits and misses are only two values.
    distinct, times = np.unique(values, return_counts=True)
    means = rng.multinomial(count, times / count, size=draws) @ distinct / count
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), float(means.std(ddof=1)), count)
