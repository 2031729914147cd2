"""Moderated variances: the prior that scattered variances come from, and intervals that hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from multimem_ray.verdict.moderation import (
    Floats,
    LogVariances,
    VariancePrior,
    pair_error,
)


def drawn(
    rng: np.random.Generator, samples: int, pairs: int, df: float = 6.0, s0: float = 0.09
) -> tuple[Floats, Floats]:
    """True scores, and differences (N, P) whose variances follow the prior (d0, s0²)."""
    scale = s0 * (df / rng.chisquare(df, samples) if math.isfinite(df) else np.ones(samples))
    truth = rng.gamma(1.0, 0.3, samples)
    return truth, truth[:, None] + rng.normal(size=(samples, pairs)) * np.sqrt(scale)[:, None]


def prior_of(variances: Floats, df: float) -> VariancePrior:
    moments = LogVariances(df)
    moments.update(variances)
    return moments.prior()


@pytest.mark.parametrize("pairs", [2, 4, 8])
@pytest.mark.parametrize("df", [6.0, math.inf])
def test_the_prior_is_found_again(pairs: int, df: float) -> None:
    _, d = drawn(np.random.default_rng(1), 40_000, pairs, df)
    prior = prior_of(d.var(axis=1, ddof=1), pairs - 1)
    assert prior.variance == pytest.approx(0.09, rel=0.05)
    # From one degree of freedom, the scatter of the variances is mostly their own error.
    near, large = (0.3, 30) if pairs == 2 else (0.1, 100)
    assert prior.df == pytest.approx(6.0, rel=near) if math.isfinite(df) else prior.df > large


def test_two_pairs_of_eight_hundred_samples_tell_how_variances_scatter() -> None:
    rng = np.random.default_rng(7)
    priors = [prior_of(drawn(rng, 800, 2, 20.0)[1].var(axis=1, ddof=1), 1) for _ in range(30)]
    inverse = np.array([1 / prior.df for prior in priors])
    assert inverse.mean() == pytest.approx(0.05, abs=0.02)
    # By mean and variance of ln s², the standard deviation is 0.1, and intervals vary with it.
    assert inverse.std() < 0.05
    reach = [prior.quantile(1) * math.sqrt(prior.variance) for prior in priors]
    assert np.std(reach) < 0.06 * np.mean(reach)


def test_samples_may_come_in_any_groups() -> None:
    _, d = drawn(np.random.default_rng(2), 3_000, 4)
    variances = d.var(axis=1, ddof=1)
    whole, parts = prior_of(variances, 3), LogVariances(3)
    for part in np.array_split(variances, 7):
        parts.update(np.append(part, [np.nan, 0.0]))
    parts.update(np.empty(0))
    assert parts.prior().df == pytest.approx(whole.df, rel=1e-9)
    assert parts.prior().variance == pytest.approx(whole.variance, rel=1e-9)


@pytest.mark.parametrize("df", [6.0, 20.0, math.inf])
@pytest.mark.parametrize("pairs", [2, 4, 8])
def test_intervals_hold_what_they_say_and_are_narrow(pairs: int, df: float) -> None:
    truth, d = drawn(np.random.default_rng(3), 20_000, pairs, df)
    variances = d.var(axis=1, ddof=1)
    prior = prior_of(variances, pairs - 1)
    error = np.sqrt(prior.moderated(variances, pairs - 1) / pairs)
    reach = prior.quantile(pairs - 1) * error
    covered = float((np.abs(d.mean(axis=1) - truth) <= reach).mean())
    assert covered == pytest.approx(0.95, abs=0.01)
    alone = student.ppf(0.975, pairs - 1) * np.sqrt(variances / pairs)
    if pairs == 2:
        assert reach.mean() / alone.mean() < 0.6


def test_few_samples_stand_alone() -> None:
    _, d = drawn(np.random.default_rng(4), 99, 4)
    variances = d.var(axis=1, ddof=1)
    prior = prior_of(variances, 3)
    assert prior == VariancePrior(0.0, 0.0)
    np.testing.assert_array_equal(prior.moderated(variances, 3), variances)
    assert prior.quantile(3) == pytest.approx(float(student.ppf(0.975, 3)))


def test_p_values_of_nothing_are_uniform() -> None:
    rng = np.random.default_rng(5)
    truth, d = drawn(rng, 20_000, 2)
    d -= truth[:, None]
    variances = d.var(axis=1, ddof=1)
    prior = prior_of(variances, 1)
    p = prior.p_values(d.mean(axis=1), np.sqrt(prior.moderated(variances, 1) / 2), 1)
    for level in (0.01, 0.05, 0.5):
        assert float((p < level).mean()) == pytest.approx(level, rel=0.15)


def test_the_error_of_two_models_is_what_held_out_samples_scatter() -> None:
    assert pair_error(np.array([3.0, -4.0, np.nan])) == pytest.approx(math.sqrt(12.5))
    assert math.isnan(pair_error(np.array([np.nan])))
