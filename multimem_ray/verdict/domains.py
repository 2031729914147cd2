"""Means and shares of parts of the data (domains), shrunk towards the whole where a part is small.

The highest of many small domains are high by chance as well. How much of the spread of domain means
m_g is truth follows from how far they lie apart beyond their squared standard errors v_g: the
variance τ² between domains that makes Σ (m_g - m)² / (v_g + τ²) equal the number of domains less
one (Paule & Mandel 1982, J. Res. Natl. Bur. Stand. 87, 377). The shrunk mean is the one that is
expected of very many samples of the domain (Efron & Morris 1975; Fay & Herriot 1979),

    m + B (m_g - m),    B = τ² / (τ² + v_g),

and its variance, with what estimating m and τ² from G domains adds (Morris 1983, J. Am. Stat.
Assoc. 78, 47),

    v_g (1 - (1 - B) (G - 1) / G) + 2 (1 - B)² (m_g - m)² / (G - 3).

The squared error of few samples is itself hardly known. It learns from the other domains by the
empirical Bayes of Smyth 2004 (see :mod:`multimem_ray.verdict.moderation`), here from mean and
variance of ln s², with degrees of freedom that differ.

Shares k_g / n_g of samples on a list are shrunk as a beta-binomial has it: with r the correlation
within domains, by Kleinman's moments (1973, J. Am. Stat. Assoc. 68, 46), and M = (1 - r) / r,

    (k_g + M p) / (n_g + M),    interval: quantiles of Beta(k_g + M p, n_g - k_g + M (1 - p)).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv, polygamma, psi

Floats = NDArray[np.float64]
_LARGE = 1e9  # degrees of freedom, or weight, that stand for very many


def moderated_variances(variances: Floats, df: Floats) -> Floats:
    """Variances (G,) of domains, each with what the others say of it.

    Args:
        variances: Unbiased, of the samples of each domain; ignored where ``df`` is 0.
        df: Degrees of freedom of each.
    """
    known = (df > 0) & (variances > 0)
    if not known.any():
        return np.zeros_like(variances)
    own, d = variances[known], df[known]
    middle = pooled = float(own @ d / d.sum())
    e = np.log(own) - psi(d / 2) + np.log(d / 2)
    beyond = float(np.var(e, ddof=1) - polygamma(1, d / 2).mean()) if len(e) > 1 else 0.0
    prior_df = _inverse_trigamma(beyond)
    if prior_df < _LARGE:
        middle = math.exp(float(e.mean()) + float(psi(prior_df / 2)) - math.log(prior_df / 2))
    moderated: Floats = np.asarray((prior_df * middle + df * variances) / (prior_df + df))
    # Scores are skewed and their variances no chi-square: on the whole, nothing is to be lost.
    lost: float = pooled * float(d.sum()) / float(moderated[known] @ d)
    return moderated * lost


def _inverse_trigamma(value: float) -> float:
    """d of which the trigamma function of d / 2 has that value; very large where there is none."""
    low, high = 1e-3, _LARGE
    if value <= polygamma(1, high / 2):
        return high
    if value >= polygamma(1, low / 2):
        return low
    found = brentq(
        lambda at: float(polygamma(1, math.exp(at) / 2)) - value, math.log(low), math.log(high)
    )
    return math.exp(float(found))


def between_variance(means: Floats, variances: Floats, whole: float) -> float:
    """τ², by how much the means (G,) of domains differ beyond their squared errors (G,)."""
    usable = variances > 0
    off, v = np.square(means[usable] - whole), variances[usable]
    if len(v) < 2:
        return 0.0

    def beyond(between: float) -> float:
        return float((off / (v + between)).sum()) - (len(v) - 1)

    if beyond(0.0) <= 0:
        return 0.0
    return float(brentq(beyond, 0.0, float(off.sum())))


def shrunk_means(
    means: Floats, variances: Floats, whole: float, between: float
) -> tuple[Floats, Floats]:
    """The shrunk means (G,) and their standard deviations (G,)."""
    with np.errstate(invalid="ignore"):
        kept = np.where(variances > 0, between / (between + variances), 1.0)
    count, drawn = len(means), (1 - kept) * (means - whole)
    # Below four domains nothing is known of τ²: it counts as if one could be spared.
    left = variances * (1 - (1 - kept) * (count - 1) / max(count, 1))
    left = left + 2 * np.square(drawn) / max(count - 3, 1)
    return means - drawn, np.sqrt(left)


def prior_weight(shares: Floats, sizes: Floats, whole: float) -> float:
    """M, how many samples of the whole each domain is given: small where domains differ.

    Where they do not, as many as there are: more than that is not known of the whole.
    """
    total, spread = float(sizes.sum()), whole * (1 - whole)
    room = float(((sizes - 1) * (1 - sizes / total)).sum()) if total else 0.0
    if spread <= 0 or room <= 0:
        return total
    squares = float((sizes * np.square(shares - whole)).sum()) / spread
    alike = (squares - (len(sizes) - 1)) / room
    if alike <= 0:
        return total
    return min(total, (1 - alike) / alike) if alike < 1 else 0.0


def shrunk_shares(
    shares: Floats, sizes: Floats, whole: float, weight: float
) -> tuple[Floats, Floats, Floats]:
    """The shrunk shares (G,), and the ends (G,) of their 95 % intervals."""
    hits, rest = shares * sizes + weight * whole, (1 - shares) * sizes + weight * (1 - whole)
    low, high = (
        np.where(hits > 0, np.where(rest > 0, betaincinv(hits, rest, at), 1.0), 0.0)
        for at in (0.025, 0.975)
    )
    return hits / (hits + rest), low, high
