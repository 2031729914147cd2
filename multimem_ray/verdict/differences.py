"""Differences of two scores with their standard errors, sample by sample.

Models of two runs are others, and their errors independent:

    d = b - a,    e² = e_a² + e_b²,    d ± t e  with  ν = e⁴ / (e_a⁴ / ν_a + e_b⁴ / ν_b)

degrees of freedom (Welch 1947; Satterthwaite 1946). Where both runs divide the samples among their
models in the same way, the errors agree in part, and the interval is wider than it need be. A
sample has moved beyond its error if the q-value of p = P(|T| ≥ |d| / e) is small enough (Benjamini
& Hochberg 1995).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from multimem_ray.verdict.lists import Bins, false_shares

Floats = NDArray[np.float64]
_NORMAL = 1e6  # degrees of freedom from which Student's distribution is the normal one
_LOWEST = 300.0  # -log10 of the smallest p-value that is told from others


@dataclass(frozen=True, slots=True)
class Differences:
    """Of (N,) samples; NaN where a score or an error is undefined.

    Attributes:
        value: b - a.
        error: Its standard error.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided p-value against no difference.
    """

    value: Floats
    error: Floats
    low: Floats
    high: Floats
    p: Floats


def differences(
    a: Floats, a_error: Floats, a_df: float, b: Floats, b_error: Floats, b_df: float
) -> Differences:
    """Differences of scores (N,) with standard errors (N,) of so many degrees of freedom."""
    value = b - a
    squares = np.square(a_error), np.square(b_error)
    error = np.sqrt(squares[0] + squares[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.square(squares[0]) / a_df + np.square(squares[1]) / b_df
        df = np.where(left > 0, np.square(squares[0] + squares[1]) / left, np.inf)
        t = np.abs(value) / error
    bounded = np.minimum(df, _NORMAL)
    normal = df >= _NORMAL
    reach = np.where(normal, ndtri(0.975), stdtrit(bounded, 0.975)) * error
    p = 2 * np.where(normal, ndtr(-t), stdtr(bounded, -t))
    return Differences(value, error, value - reach, value + reach, p)


class DifferenceBins:
    """How many differences have which p-value, in bounded memory; then the q-value of each."""

    def __init__(self) -> None:
        self._bins = Bins(0.0, _LOWEST)

    def update(self, p: Floats) -> None:
        """Add (N,) p-values; NaN is not counted."""
        self._bins.update(_steepness(p))

    def q(self, p: Floats) -> Floats:
        """(N,) q-values of p-values among those that were added; NaN for NaN."""
        shares = false_shares(self._bins, 10.0 ** -self._bins.edges[:-1])
        known = np.isfinite(p)
        told = np.full(p.shape, np.nan)
        told[known] = shares[self._bins.places(_steepness(p[known]))]
        return told


def _steepness(p: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.minimum(-np.log10(p), _LOWEST))
