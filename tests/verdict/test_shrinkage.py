"""The shrunk score: nearer to the truth than the literal one, and told how near."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.verdict.shrinkage import (
    Floats,
    Shrinkage,
    ShrinkageMoments,
    Spread,
    SpreadMoments,
)


def drawn(seed: int, samples: int, pairs: int, noise: float = 0.5) -> tuple[Floats, Floats]:
    """True (cmc_out, score) of samples, (N, 2), and what pairs make of them, (N, P, 2)."""
    rng = np.random.default_rng(seed)
    truth = rng.multivariate_normal([0.4, 0.2], [[0.09, -0.06], [-0.06, 0.09]], samples)
    error = rng.multivariate_normal(
        [0.0, 0.0], noise**2 * np.array([[0.5, -0.4], [-0.4, 1.0]]), (samples, pairs)
    )
    return truth, truth[:, None, :] + error


def fitted(pairs: Floats) -> Shrinkage:
    moments = ShrinkageMoments()
    moments.update(pairs)
    return moments.fit()


@pytest.mark.parametrize(("pairs", "ratio"), [(2, 0.75), (4, 0.8), (8, 0.9)])
def test_it_is_nearer_to_the_truth_and_says_how_near(pairs: int, ratio: float) -> None:
    truth, seen = drawn(1, 20_000, pairs)
    shrinkage = fitted(seen)
    y = seen.mean(axis=1)
    error = shrinkage.shrunk(y) - truth[:, 1]
    literal = np.sqrt(np.square(y[:, 1] - truth[:, 1]).mean())
    assert np.sqrt(np.square(error).mean()) < ratio * literal
    assert shrinkage.sd == pytest.approx(float(error.std()), rel=0.03)
    listed = np.argsort(-shrinkage.shrunk(y))[:2_000]
    assert abs(float(error[listed].mean())) < 0.02, "no winner's curse"
    assert float((y[listed, 1] - truth[listed, 1]).mean()) > 0.03, "which the literal score has"
    covered = np.abs(error[listed]) <= 1.96 * shrinkage.sd
    assert float(covered.mean()) == pytest.approx(0.95, abs=0.02)


def test_samples_may_come_in_any_groups() -> None:
    _, seen = drawn(2, 1_000, 4)
    whole, parts = fitted(seen), ShrinkageMoments()
    for part in np.array_split(seen, 9):
        unknown = np.full((1, 4, 2), np.nan)
        parts.update(np.concatenate([part, unknown]))
    parts.update(np.empty((0, 4, 2)))
    assert parts.count == 1_000
    np.testing.assert_allclose(parts.fit().weights, whole.weights, rtol=1e-9)
    assert parts.fit().sd == pytest.approx(whole.sd, rel=1e-9)


def test_where_nothing_but_error_is_the_score_is_the_mean() -> None:
    rng = np.random.default_rng(3)
    shrinkage = fitted(rng.normal(size=(50_000, 2, 2)))
    assert np.abs(shrinkage.weights).max() < 0.05
    assert shrinkage.sd < 0.15


def test_a_cmc_out_that_never_varies_is_of_no_use_and_no_harm() -> None:
    truth, seen = drawn(4, 5_000, 4)
    seen[:, :, 0] = 0.5
    shrinkage = fitted(seen)
    error = shrinkage.shrunk(seen.mean(axis=1)) - truth[:, 1]
    assert shrinkage.sd == pytest.approx(float(error.std()), rel=0.05)


def test_what_views_add_is_error() -> None:
    _, seen = drawn(5, 5_000, 4)
    moments = ShrinkageMoments()
    moments.update(seen)
    assert moments.fit(views=0.05).weights[1] < moments.fit().weights[1]


def spread(pairs: Floats, views: float = 0.0) -> tuple[Shrinkage, Spread]:
    moments = ShrinkageMoments()
    moments.update(pairs)
    second = SpreadMoments(moments.fit_to_fewer(views))
    for part in np.array_split(pairs, 7):
        second.update(part)
    shrinkage = moments.fit(views)
    return shrinkage, second.fit(shrinkage)


def test_without_outstanding_samples_the_spread_is_the_same_everywhere() -> None:
    _, seen = drawn(6, 50_000, 8)
    shrinkage, found = spread(seen)
    ends = found.sd(np.array([found.middle, found.middle + 0.5, found.middle - 0.5]))
    np.testing.assert_allclose(ends, shrinkage.sd, rtol=0.04)


@pytest.mark.parametrize(("pairs", "views"), [(2, 0.0), (2, 0.04), (4, 0.0), (8, 0.01)])
def test_where_a_few_are_memorized_far_more_the_spread_holds_for_those_listed(
    pairs: int, views: float
) -> None:
    rng = np.random.default_rng(7)
    truth, seen = drawn(7, 20_000, pairs)
    more = np.where(rng.random(20_000) < 0.08, rng.exponential(1.0, 20_000), 0.0)
    seen[:, :, 1] += (more + rng.normal(0, np.sqrt(views), 20_000))[:, None]
    shrinkage, found = spread(seen, views)
    shrunk = shrinkage.shrunk(seen.mean(axis=1))
    error = np.abs(shrunk - truth[:, 1] - more)
    listed = np.argsort(-shrunk)[:2_000]
    assert float((error[listed] <= 1.96 * shrinkage.sd).mean()) < 0.88
    assert float((error[listed] <= 1.96 * found.sd(shrunk[listed])).mean()) > 0.9
    assert 0.93 < float((error <= 1.96 * found.sd(shrunk)).mean()) < 0.99


def test_two_pairs_fewer_are_what_as_many_models_would_give() -> None:
    _, seen = drawn(8, 100_000, 5)
    moments = ShrinkageMoments()
    moments.update(seen)
    fewer = moments.fit_to_fewer()
    again = fitted(seen[:, :3])
    np.testing.assert_allclose(fewer.weights, again.weights, atol=0.02)
    assert fewer.sd == pytest.approx(again.sd, rel=0.02)


def test_a_spread_of_no_sample_is_that_of_the_shrinkage() -> None:
    shrinkage = Shrinkage(np.array([0.4, 0.2]), np.array([0.0, 0.5]), 0.3)
    moments = SpreadMoments(shrinkage)
    moments.update(np.full((3, 2, 2), np.nan))
    assert moments.fit(shrinkage) == Spread(0.2, 0.3**2, 0.0, 0.0)
