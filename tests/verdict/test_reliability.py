"""Split-half reliability of rankings, against audits that are simulated again and again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from multimem_ray.verdict.reliability import rank_reliability, stepped_up


def audits(shape: float, blocks: int, count: int, samples: int = 500) -> list[np.ndarray]:
    """Audits (N, P) of samples of which few are memorized much, the fewer the lower the shape."""
    rng = np.random.default_rng(int(10 * shape) + blocks)
    truth = rng.gamma(shape, 1, samples) / np.sqrt(shape)
    return [truth[:, None] + rng.normal(0, 1, (samples, blocks)) for _ in range(count)]


def repeated(made: list[np.ndarray]) -> float:
    """Mean correlation between the rankings of two audits."""
    means = [one.mean(axis=1) for one in made]
    return float(
        np.mean([spearmanr(a, b)[0] for a, b in zip(means[::2], means[1::2], strict=True)])
    )


@pytest.mark.parametrize(("shape", "blocks"), [(5, 2), (5, 4), (0.5, 4), (0.5, 8)])
def test_it_is_the_correlation_with_another_audit(shape: float, blocks: int) -> None:
    made = audits(shape, blocks, 24)
    truth = repeated(made)
    found = [rank_reliability(one) for one in made]
    told = [one.at(blocks) for one in found if one is not None]
    assert np.mean(told) == pytest.approx(truth, abs=0.02)
    intervals = [one.interval(blocks) for one in found if one is not None]
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.9
    assert np.mean([high - low for low, high in intervals]) < 0.25


def test_blocks_of_unequal_worth_widen_the_interval() -> None:
    made = audits(3, 8, 1)[0]
    rng = np.random.default_rng(0)
    unequal = made + rng.normal(0, 3, made.shape) * (np.arange(8) < 3)
    equal = made + rng.normal(0, 1, made.shape)
    widths = []
    for values in (equal, unequal):
        found = rank_reliability(values)
        assert found is not None
        low, high = found.interval(8)
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_two_blocks_are_spearman_and_brown() -> None:
    values = audits(2, 2, 1)[0]
    r = float(spearmanr(values[:, 0], values[:, 1])[0])
    found = rank_reliability(values)
    assert found is not None
    assert found.correlation == pytest.approx(r)
    assert found.at(2) == pytest.approx(2 * r / (1 + r))
    assert found.at(8) == pytest.approx(8 * r / (1 + 7 * r))


def test_chance_has_no_reliability() -> None:
    found = rank_reliability(np.random.default_rng(0).normal(0, 1, (300, 4)))
    assert found is not None
    low, high = found.interval(4)
    assert low == 0.0
    assert high < 0.35


@pytest.mark.parametrize("values", [np.ones((9, 4)), np.zeros((3, 4)), np.zeros((50, 1))])
def test_nothing_is_said_of_what_cannot_be_told(values: np.ndarray) -> None:
    assert rank_reliability(values) is None


def test_the_formula_of_spearman_and_brown() -> None:
    assert stepped_up(0.5, 2) == pytest.approx(2 / 3)
    assert stepped_up(0.5, 1) == 0.5
    assert stepped_up(None, 2) is None
    assert stepped_up(-1.0, 2) is None
