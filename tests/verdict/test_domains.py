"""Small domains, shrunk: against truths that are known."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.verdict.domains import (
    between_variance,
    moderated_variances,
    prior_weight,
    shrunk_means,
    shrunk_shares,
)


@pytest.mark.parametrize("between_sd", [0.0, 0.1, 0.4])
def test_shrunk_means_are_nearer_to_the_truth_and_their_intervals_cover_it(
    between_sd: float,
) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 60, 2_000)
    truth = 0.3 + between_sd * rng.normal(size=2_000)
    samples = [t + 0.5 * rng.normal(size=n) for t, n in zip(truth, sizes, strict=True)]
    means = np.array([own.mean() for own in samples])
    own = np.array([one.var(ddof=1) if len(one) > 1 else 0.0 for one in samples])
    whole = float(np.concatenate(samples).mean())
    errors = moderated_variances(own, sizes - 1.0) / sizes
    between = between_variance(means, errors, whole)
    assert between**0.5 == pytest.approx(between_sd, abs=0.03)
    shrunk, sd = shrunk_means(means, errors, whole, between)

    def off(values: np.ndarray) -> float:
        return float(np.sqrt(np.square(values - truth).mean()))

    assert off(shrunk) < 0.95 * off(means)
    covered = np.abs(shrunk - truth) <= 1.96 * sd
    if between_sd:
        assert 0.93 < covered.mean() < 0.97


@pytest.mark.parametrize("between_sd", [0.0, 0.05, 0.2])
def test_few_domains_are_covered_whatever_lies_between_them(between_sd: float) -> None:
    rng, covered = np.random.default_rng(3), []
    sizes = np.array([5, 8, 12, 20, 35, 60])
    for _ in range(400):
        truth = 0.3 + between_sd * rng.normal(size=6)
        means = truth + 0.5 * rng.normal(size=6) / np.sqrt(sizes)
        errors, whole = 0.25 / sizes, float(means @ sizes / sizes.sum())
        between = between_variance(means, errors, whole)
        shrunk, sd = shrunk_means(means, errors, whole, between)
        covered.append(np.abs(shrunk - truth) <= 1.96 * sd)
    assert np.mean(covered) > 0.92


def test_a_variance_of_few_samples_learns_from_the_others() -> None:
    rng = np.random.default_rng(1)
    own = 0.25 * rng.chisquare(2, 500) / 2
    assert moderated_variances(own, np.full(500, 2.0)) == pytest.approx(np.full(500, 0.25), rel=0.3)
    apart = np.where(np.arange(500) < 250, 0.01, 1.0) * rng.chisquare(50, 500) / 50
    told = moderated_variances(apart, np.full(500, 50.0))
    assert told == pytest.approx(apart, rel=0.5)
    assert moderated_variances(np.zeros(2), np.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("weight", [8.0, 400.0])
def test_shrunk_shares_are_nearer_to_the_truth_and_their_intervals_cover_it(weight: float) -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 80, 2_000).astype(float)
    truth = rng.beta(0.2 * weight, 0.8 * weight, 2_000)
    shares = rng.binomial(sizes.astype(int), truth) / sizes
    whole = float((shares * sizes).sum() / sizes.sum())
    found = prior_weight(shares, sizes, whole)
    assert found == pytest.approx(weight, rel=0.5)
    shrunk, low, high = shrunk_shares(shares, sizes, whole, found)
    assert np.square(shrunk - truth).mean() < np.square(shares - truth).mean()
    assert 0.92 < ((low <= truth) & (truth <= high)).mean() < 0.98


def test_without_a_spread_every_share_is_that_of_the_whole() -> None:
    shares, sizes = np.array([0.0, 0.0]), np.array([3.0, 5.0])
    shrunk, low, high = shrunk_shares(shares, sizes, 0.0, prior_weight(shares, sizes, 0.0))
    assert shrunk.tolist() == low.tolist() == high.tolist() == [0.0, 0.0]
    same = np.array([0.2, 0.2])
    assert prior_weight(same, sizes, 0.2) == 8.0
    shrunk, low, high = shrunk_shares(same, sizes, 0.2, 8.0)
    assert shrunk == pytest.approx(same)
    assert (high - low).min() > 0.3
