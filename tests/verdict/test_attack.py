"""The attack and the ε it disproves, beside what says the same in another way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]
from sklearn.metrics import roc_auc_score, roc_curve

from multimem_ray.verdict.attack import (
    Population,
    Roc,
    attack_ratios,
    attack_score,
    epsilon_bound,
)

RNG = np.random.default_rng


def halves(rng: np.random.Generator, count: int, models: int) -> np.ndarray:
    bits = rng.random((count, models // 2)) < 0.5
    return np.stack([bits, ~bits], axis=2).reshape(count, models)


def naive_ratio(cmc: list[float], member: list[bool], model: int, apart: set[int]) -> float:
    others = [m for m in range(len(cmc)) if m not in apart]
    inside = [math.exp(cmc[m]) for m in others if member[m]]
    outside = [math.exp(cmc[m]) for m in others if not member[m]]
    if not others:
        return cmc[model]
    if not outside:
        return math.nan
    out = sum(outside) / len(outside)
    p = (sum(inside) / len(inside) + out) / 2 if inside else out
    return math.log(math.exp(cmc[model]) / p)


@pytest.mark.parametrize(("models", "paired"), [(2, True), (4, True), (6, True), (3, False)])
def test_ratios_are_those_of_the_formula(models: int, paired: bool) -> None:
    rng = RNG(0)
    cmc, member = rng.normal(1, 0.3, (50, models)), rng.random((50, models)) < 0.5
    found = attack_ratios(cmc, member, paired=paired, target=False)
    for row, model in itertools.product(range(50), range(models)):
        apart = {model, model ^ 1} if paired else {model}
        expected = naive_ratio(cmc[row].tolist(), member[row].tolist(), model, apart)
        assert found[row, model] == pytest.approx(expected, nan_ok=True)


def test_a_target_is_attacked_with_all_references() -> None:
    rng = RNG(1)
    cmc, member = rng.normal(1, 0.3, (20, 5)), halves(rng, 20, 6)[:, :5]
    found = attack_ratios(cmc, member, paired=True, target=True)
    assert found.shape == (20, 1)
    for row in range(20):
        expected = naive_ratio(cmc[row].tolist(), member[row].tolist(), 4, {4})
        assert found[row, 0] == pytest.approx(expected)


def test_a_score_is_a_share_of_the_population() -> None:
    population = np.array([0.0, 1.0, 1.0, 2.0])
    found = attack_score(np.array([-1.0, 1.0, 1.5, 3.0, np.nan]), population)
    np.testing.assert_allclose(found, [0, 0.5, 0.75, 1, np.nan])
    assert np.isnan(attack_score(np.array([1.0]), np.array([]))).all()


@pytest.mark.parametrize("models", [2, 4, 8])
def test_models_that_learned_nothing_are_at_chance(models: int) -> None:
    rng = RNG(models)
    base = rng.normal(1, 0.5, (20_000, 1))
    cmc = base + rng.normal(0, 0.1, (20_000, models)) + rng.normal(0, 0.3, models)
    member = halves(rng, 20_000, models)
    ratios = attack_ratios(cmc, member, paired=True, target=False)
    for model in range(models):
        assert 0.48 < roc_auc_score(member[:, model], ratios[:, model]) < 0.52
    known = Population(cmc[:5000], member[:5000], paired=True, target=False)
    risk = known.risk(cmc[5000:], member[5000:])
    assert abs(risk.mean() - 0.5) < 0.02
    memorized = cmc[5000:] + 0.5 * member[5000:]
    assert known.risk(memorized, member[5000:]).mean() > risk.mean() + 0.1


def binned(rng: np.random.Generator, gain: float, count: int = 3000) -> tuple[Roc, np.ndarray]:
    member = rng.random(count) < 0.5
    places = np.clip((rng.normal(gain * member, 1) * 20 + 200).astype(int), 0, 399)
    counts = [np.bincount(places[side], minlength=400) for side in (member, ~member)]
    return Roc(*counts), np.stack([places, member], axis=1)


def test_the_curve_is_that_of_scikit_learn() -> None:
    roc, rows = binned(RNG(2), 1.0)
    area, se = roc.auc()
    assert area == pytest.approx(roc_auc_score(rows[:, 1], rows[:, 0]))
    areas = [binned(RNG(seed), 1.0)[0].auc()[0] for seed in range(200)]
    assert se == pytest.approx(np.std(areas), rel=0.2)
    false, true, _ = roc_curve(rows[:, 1], rows[:, 0], drop_intermediate=False)
    found = roc.tpr(0.01)
    assert found is not None
    assert found[0] == pytest.approx(true[false <= 0.01].max())
    assert found[1] < found[0] < found[2]
    assert roc.tpr(0.0001) is None


def test_intervals_of_the_curve_cover() -> None:
    truth = float(stats.norm.sf(stats.norm.isf(0.01) - 1.0))
    inside = 0
    for seed in range(200):
        found = binned(RNG(1000 + seed), 1.0)[0].tpr(0.01)
        assert found is not None
        inside += found[1] <= truth <= found[2]
    assert inside >= 190


def test_guesses_are_counted_as_badly_as_ties_allow() -> None:
    roc, rows = binned(RNG(3), 1.0)
    # The worst order within a bin: from above others come first, from below members.
    worst = np.lexsort((-rows[:, 1], rows[:, 0]))
    member = rows[worst, 1].astype(bool)
    for guesses in (2, 100, 900, 2998):
        half = guesses // 2
        expected = int((~member[:half]).sum()) + int(member[::-1][:half].sum())
        assert roc.right_guesses(guesses) == expected


def test_epsilon_is_where_the_binomial_tail_ends() -> None:
    for right, guesses in ((90, 100), (600, 1000), (20, 20)):
        found = epsilon_bound(right, guesses)
        share = math.exp(found) / (1 + math.exp(found))
        assert stats.binom.sf(right - 1, guesses, share) == pytest.approx(0.05, rel=1e-6)
    assert epsilon_bound(50, 100) == epsilon_bound(0, 10) == 0.0


def test_a_private_training_is_seldom_called_worse_than_it_is() -> None:
    """Randomized response with ε: the bound exceeds it in at most one of twenty."""
    rng, epsilon = RNG(4), 1.0
    right = rng.binomial(400, math.exp(epsilon) / (1 + math.exp(epsilon)), 4000)
    assert np.mean([epsilon_bound(int(v), 400) > epsilon for v in right]) <= 0.055
