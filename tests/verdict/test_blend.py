"""Blends of full models and proxies, on simulated samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.verdict.blend import FOLDS, Blend, BlendMoments

SAMPLES = 4000


def simulated(
    pairs: int, proxies: int, same: float, seed: int = 0, samples: int = SAMPLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, full pairs, and pairs of proxies."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.5, 1.0, samples)
    theirs = 2 * (same * truth + (1 - same**2) ** 0.5 * rng.normal(size=samples))

    def pair(of: np.ndarray, count: int) -> np.ndarray:
        out = rng.normal(0, 0.7, (len(of), count)) - 0.4 * of[:, None]
        inside = of[:, None] - 0.4 * of[:, None] + rng.normal(0, 0.7, (len(of), count))
        return np.stack([out, inside - out], axis=2)

    return truth, pair(truth, pairs), pair(theirs, proxies)


def blended(full: np.ndarray, proxies: np.ndarray) -> Blend:
    moments = BlendMoments()
    folds = np.arange(len(full)) % FOLDS
    for part in np.array_split(np.arange(len(full)), 7):
        moments.update(full[part], proxies[part], folds[part])
    blend = moments.fit(0.0)
    assert blend is not None
    return blend


def predicted(blend: Blend, full: np.ndarray, proxies: np.ndarray) -> np.ndarray:
    y = np.concatenate([full.mean(axis=1), proxies.mean(axis=1)], axis=1)
    found: np.ndarray = blend.mean[1] + (y - blend.mean) @ blend.weights
    return found


@pytest.mark.parametrize("pairs", [2, 4])
def test_the_blend_is_as_good_as_regression_on_the_truth(pairs: int) -> None:
    truth, full, proxies = simulated(pairs, 4, same=0.95)
    blend = blended(full, proxies)
    error = predicted(blend, full, proxies) - truth
    y = np.concatenate([full.mean(axis=1), proxies.mean(axis=1), np.ones((SAMPLES, 1))], axis=1)
    best = truth - y @ np.linalg.lstsq(y, truth, rcond=None)[0]
    assert error.std() < 1.02 * best.std()
    assert blend.sd**2 == pytest.approx(error.var(), abs=0.02)
    assert blend.alone_sd > 1.1 * blend.sd  # what the proxies are worth
    assert blend.agreement is not None
    value, low, high = blend.agreement
    assert value == pytest.approx(0.95, abs=0.04)
    assert low < 0.95 < high


@pytest.mark.parametrize("pairs", [2, 4])
@pytest.mark.parametrize("samples", [300, SAMPLES])
def test_proxies_of_noise_weigh_nothing_and_cost_nothing(pairs: int, samples: int) -> None:
    ratios = []
    for seed in range(10):
        truth, full, proxies = simulated(pairs, 4, same=0.0, seed=seed, samples=samples)
        blend = blended(full, proxies)
        assert np.abs(blend.weights[2:]).max() < 0.1
        y = full.mean(axis=1)
        alone = blend.mean[1] + (y - blend.mean[:2]) @ blend.alone
        ratios.append(np.std(predicted(blend, full, proxies) - truth) / np.std(alone - truth))
    assert np.mean(ratios) < 1.01


def test_views_are_error_of_the_full_models() -> None:
    _, full, proxies = simulated(2, 4, same=0.9)
    moments = BlendMoments()
    moments.update(full, proxies, np.arange(SAMPLES) % FOLDS)
    without, with_views = moments.fit(0.0), moments.fit(0.2)
    assert without is not None
    assert with_views is not None
    assert with_views.weights[1] < without.weights[1]


def test_too_few_samples_are_not_blended() -> None:
    _, full, proxies = simulated(2, 2, same=0.9, samples=99)
    moments = BlendMoments()
    moments.update(full, proxies, np.arange(99) % FOLDS)
    assert moments.fit(0.0) is None


def test_an_agreement_of_one_has_an_interval() -> None:
    for seed in range(5):
        _, full, proxies = simulated(2, 2, same=1.0, seed=seed, samples=300)
        agreement = blended(full, proxies).agreement
        assert agreement is not None
        assert 0.6 < agreement[1] <= agreement[0] <= agreement[2] <= 1


def test_samples_without_a_score_are_passed_over() -> None:
    _, full, proxies = simulated(2, 2, same=0.9, samples=400)
    full[:100], proxies[100:150] = np.nan, np.nan
    assert blended(full, proxies).samples == 250
