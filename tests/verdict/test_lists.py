"""Lists with a known error, against the definitions on sorted samples and against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, norm
from scipy.stats import t as student

from multimem_ray.verdict.lists import Bins, probability_below, q_values, threshold
from multimem_ray.verdict.moderation import LogVariances


def test_q_values_are_those_of_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(1)
    t = np.concatenate([rng.standard_t(8, 900), rng.standard_t(8, 100) + 5])
    bins = Bins(float(t.min()), float(t.max()))
    for part in np.array_split(t, 3):
        bins.update(np.append(part, np.nan))
    expected = false_discovery_control(student.sf(t, 8))
    np.testing.assert_allclose(q_values(bins, 8)[bins.places(t)], expected, rtol=2e-3, atol=1e-6)


def test_a_q_list_is_as_false_as_it_says() -> None:
    rng = np.random.default_rng(2)
    shares, power = [], []
    for _ in range(200):
        t = np.concatenate([rng.standard_t(10, 800), rng.standard_t(10, 200) + 4])
        bins = Bins(float(t.min()), float(t.max()), 1 << 12)
        bins.update(t)
        listed = q_values(bins, 10)[bins.places(t)] <= 0.05
        shares.append(listed[:800].sum() / max(1, listed.sum()))
        power.append(listed[800:].mean())
    assert np.mean(shares) == pytest.approx(0.05 * 0.8, abs=0.012)
    assert np.mean(power) > 0.7


def test_the_list_beyond_a_bound_is_the_longest_of_its_error() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(0.2, 0.3, 20_000)
    shrunk, sd, bound = truth + rng.normal(0, 0.15, 20_000), 0.13, 0.4
    pi = probability_below(shrunk, sd, bound)
    np.testing.assert_allclose(pi, norm.cdf((bound - shrunk) / sd))
    order = np.argsort(-shrunk)
    running = np.cumsum(pi[order]) / np.arange(1, len(order) + 1)
    longest = int(np.flatnonzero(running <= 0.05)[-1]) + 1
    bins = Bins(float(shrunk.min()), float(shrunk.max()))
    for part in np.array_split(np.arange(20_000), 4):
        bins.update(shrunk[part], pi[part])
    found = threshold(bins, 0.05)
    assert found is not None
    lowest, count, share = found
    assert count == int((shrunk >= lowest).sum())
    assert longest - 3 <= count <= longest
    assert share <= 0.05


def test_a_list_may_be_empty() -> None:
    shrunk = np.zeros(10)
    bins = Bins(0.0, 0.0)
    bins.update(shrunk, probability_below(shrunk, 0.1, 1.0))
    assert threshold(bins, 0.05) is None
    assert probability_below(np.array([0.1, 0.3]), 0.0, 0.2).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="lower bound first"):
        Bins(1.0, 0.0)


@pytest.mark.parametrize("pairs", [4, 8])
@pytest.mark.parametrize("df", [6.0, 25.0, np.inf])
def test_the_list_of_an_audit_is_as_false_as_it_says(pairs: int, df: float) -> None:
    """Simulated audits with never-trained samples, from the differences of pairs to q-values."""
    rng = np.random.default_rng(pairs)
    false, power = [], []
    for _ in range(60):
        truth = np.concatenate([np.zeros(200), np.full(50, 0.9), rng.gamma(4.0, 0.08, 250)])
        spread = 0.4 * np.sqrt(df / rng.chisquare(df, 500) if np.isfinite(df) else np.ones(500))
        d = truth[:, None] + rng.normal(size=(500, pairs)) * spread[:, None]
        variances = d.var(axis=1, ddof=1)
        moments = LogVariances(pairs - 1)
        moments.update(variances)
        prior = moments.prior()
        t = d.mean(axis=1) / np.sqrt(prior.moderated(variances, pairs - 1) / pairs)
        bins = Bins(float(t[:250].min()), float(t[:250].max()), 1 << 12)
        bins.update(t[:250])
        listed = q_values(bins, prior.df + pairs - 1)[bins.places(t[:250])] <= 0.05
        false.append(listed[:200].sum() / max(1, listed.sum()))
        power.append(listed[200:].mean())
    assert np.mean(false) <= 0.055
    assert np.mean(power) > (0.9 if df > 6 else 0.8)
