"""AUROC with a confidence interval, and precision at k.

The interval is DeLong's (1988), computed from midranks (Sun and Xu 2014) in O(N log N), on the
logit scale, so that it stays inside [0, 1] near a perfect score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from multimem_ray.results.accumulate import Floats

Bools = npt.NDArray[np.bool_]

Z95 = 1.959963984540054
CURVE_POINTS = 128


def auroc(planted: Bools, suspicion: Floats) -> dict[str, Any]:
    """SeededDropout that a planted sample looks more suspicious than another one.

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
    value = float(roc_auc_score(planted, suspicion))
    se = delong_se(planted, suspicion)
    if se is None or se == 0.0 or value in {0.0, 1.0}:
        return {"auroc": value, "low": None, "high": None}
    middle, spread = math.log(value / (1 - value)), Z95 * se / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-edge)) for edge in (middle - spread, middle + spread))
    return {"auroc": value, "low": low, "high": high}


def delong_se(planted: Bools, suspicion: Floats) -> float | None:
    """DeLong's standard error of the AUROC; None below two samples of a class."""
    hits, rest = suspicion[planted], suspicion[~planted]
    m, n = len(hits), len(rest)
    if m < 2 or n < 2:
        return None
    together = midranks(np.concatenate([hits, rest]))
    for_hits = (together[:m] - midranks(hits)) / n
    for_rest = 1.0 - (together[m:] - midranks(rest)) / m
    return math.sqrt(for_hits.var(ddof=1) / m + for_rest.var(ddof=1) / n)


def midranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


def precision(planted: Bools, suspicion: Floats, ks: Iterable[int]) -> list[dict[str, Any]]:
    """Share of planted samples among the k most suspicious, with Wilson's 95 % interval.

    Equal scores keep the order of the rows. A k beyond N is left out.
    """
    order = np.argsort(-suspicion, kind="stable")
    found = np.cumsum(planted[order])
    return [
        {"k": k, "precision": float(found[k - 1]) / k, **wilson(int(found[k - 1]), k)}
        for k in sorted({k for k in ks if 1 <= k <= len(order)})
    ]


def wilson(hits: int, trials: int) -> dict[str, float]:
    """Wilson's (1927) 95 % interval of a proportion."""
    share, square = hits / trials, Z95**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    return {"low": max(0.0, middle - half), "high": min(1.0, middle + half)}


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
