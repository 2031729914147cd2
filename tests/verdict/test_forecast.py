"""Forecasts for other numbers of models, against audits that are simulated with those."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from multimem_ray.verdict.forecast import forecast, forecast_of_one

SAMPLES = 4_000
VIEWS = 0.02


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truths (N, 2): what fits together badly is memorized more; and what views add (N,)."""
    rng = np.random.default_rng(seed)
    score = rng.gamma(4.0, 0.15, SAMPLES)
    out = 0.8 - 0.5 * score + rng.normal(0, 0.1, SAMPLES)
    return np.stack([out, score], axis=1), rng.normal(0, math.sqrt(VIEWS), SAMPLES)


def audit(blocks: int, seed: int) -> np.ndarray:
    truth, views = world()
    rng = np.random.default_rng(seed)
    values = truth[:, None] + rng.normal(0, 0.4, (SAMPLES, blocks, 2))
    values[:, :, 1] += views[:, None]
    return values


@pytest.mark.parametrize("known", [2, 4])
def test_other_numbers_of_blocks_come_out_as_foretold(known: int) -> None:
    found = {row.blocks: row for row in forecast(audit(known, 1), [1, 4, 8], VIEWS)}
    truth = world()[0][:, 1]
    for blocks in (4, 8):
        first, second = (audit(blocks, seed)[:, :, 1].mean(axis=1) for seed in (2, 3))
        assert found[blocks].reliability == pytest.approx(spearmanr(first, second)[0], abs=0.03)
        assert found[blocks].limit == pytest.approx(math.sqrt(found[blocks].reliability))
    y = audit(8, 4).mean(axis=1)
    design = np.column_stack([np.ones(SAMPLES), y])
    ranked = design @ np.linalg.lstsq(design, truth, rcond=None)[0]
    hits = (truth > np.quantile(truth, 0.8))[np.argsort(-ranked)]
    share = np.cumsum(hits) / np.arange(1, SAMPLES + 1)
    power = hits[: np.flatnonzero(share >= 0.95)[-1] + 1].sum() / hits.sum()
    # Truths are drawn less skewed than they are where little is known: never a promise too high.
    assert power - 0.15 <= found[8].power <= power + 0.05
    assert found[4].power < found[8].power
    assert found[1].power is None


def test_one_block_tells_with_what_is_all_error() -> None:
    scores = audit(1, 1)[:, 0, 1] - world()[1]
    found = {row.blocks: row for row in forecast_of_one(scores, 0.16, [1, 8])}
    first, second = (audit(8, seed)[:, :, 1].mean(axis=1) - world()[1] for seed in (2, 3))
    assert found[8].reliability == pytest.approx(spearmanr(first, second)[0], abs=0.03)


def test_chance_promises_nothing() -> None:
    rng = np.random.default_rng(0)
    found = forecast(rng.normal(size=(500, 4, 2)), [2, 16])
    assert all(row.reliability < 0.35 for row in found[:1])
    assert found[0].power is not None
    assert found[0].power < 0.05
    assert forecast(np.zeros((500, 4, 2)), [2]) == []
    assert forecast_of_one(rng.normal(size=500), 2.0, [2]) == []
