"""Agreement between pairs of models, against correlations taken literally."""

from __future__ import annotations

import numpy as np
import pytest

from multimem_ray.results.reliability import (
    NO_PAIRS,
    ONE_TARGET,
    TOO_FEW,
    Reliability,
    RowSample,
    reliability_words,
)

N = 400


def run_of(models: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Consistencies and members (N, M): a sample's own level and gain, and noise of each model."""
    rng = np.random.default_rng(seed)
    bits = rng.random((N, models // 2)) < 0.5
    member = np.stack([bits, ~bits], axis=2).reshape(N, models)
    level, gain = rng.normal(0.6, 0.1, (N, 1)), abs(rng.normal(0.1, 0.1, (N, 1)))
    return level + gain * member + rng.normal(0, 0.05, (N, models)), member.astype(float)


def mean_correlation(columns: np.ndarray) -> float:
    matrix = np.corrcoef(columns, rowvar=False)
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def test_halves_are_compared_pair_by_pair() -> None:
    cmc, member = run_of(6)
    made = Reliability("complementary_halves", 6)
    for part in np.array_split(np.arange(N), 3):
        made.update(cmc[part], member[part], None)
    outside = np.zeros((5, 6))
    made.update(outside + 9.0, outside, None)  # no model saw them
    saw = member[:, ::2] == 1
    gains = np.where(saw, 1, -1) * (cmc[:, ::2] - cmc[:, 1::2])
    out = np.where(saw, cmc[:, 1::2], cmc[:, ::2])
    shown = made.result()
    r = mean_correlation(gains)
    assert shown["multimem"] == pytest.approx(3 * r / (1 + 2 * r))
    r = mean_correlation(out)
    assert shown["cmc_out"] == pytest.approx(3 * r / (1 + 2 * r))
    assert (shown["pairs"], shown["reason"]) == (3, None)
    assert [(row["models"], row["forecast"]) for row in shown["growth"]] == [
        (2, False), (4, False), (6, False), (12, True),
    ]  # fmt: skip
    values = [row["multimem"] for row in shown["growth"]]
    assert values == sorted(values)
    assert values[2] == shown["multimem"]


def test_only_the_candidates_of_a_candidate_design_count() -> None:
    cmc, member = run_of(4)
    splits = ["S_C" if number % 4 == 0 else "S_S" for number in range(N)]
    made = Reliability("candidate", 4)
    made.update(cmc, member, list(splits))
    r = mean_correlation((cmc[:, ::2] - cmc[:, 1::2])[::4])
    assert made.result()["multimem"] == pytest.approx(2 * r / (1 + r))
    assert made.result()["cmc_out"] is None


@pytest.mark.parametrize(
    ("kind", "models", "targeted", "reason"),
    [
        ("leave_subset_out", 4, False, NO_PAIRS),
        ("complementary_halves", 2, False, TOO_FEW),
        ("complementary_halves", 4, True, ONE_TARGET),
    ],
)
def test_what_cannot_be_told_has_a_reason(
    kind: str, models: int, targeted: bool, reason: str
) -> None:
    made = Reliability(kind, models, targeted=targeted)
    made.update(*run_of(models), None)
    shown = made.result()
    assert (shown["multimem"], shown["reason"]) == (None, reason)
    # A target stands beside models whose own agreement can be told.
    assert (shown["cmc_out"] is not None) == targeted


def test_rankings_are_told_with_an_interval_and_their_limit() -> None:
    cmc, member = run_of(8)
    made = Reliability("complementary_halves", 8)
    made.update(cmc, member, None)
    shown = made.result()
    ranks = shown["ranks"]["multimem"]
    assert 0 < ranks["low"] < ranks["value"] < ranks["high"] < 1
    for end in ("low", "high"):
        assert ranks[f"limit_{end}"] == pytest.approx(np.sqrt(ranks[end]))
    assert ranks["limit"] == pytest.approx(np.sqrt(ranks["value"]))
    growth = [row["ranks"] for row in shown["growth"]]
    assert growth == sorted(growth)
    assert growth[2] == ranks["value"]
    (said,) = reliability_words(shown)
    assert f"reliability {ranks['value']:.2f} ({ranks['low']:.2f} to" in said
    assert reliability_words(None) == []


def test_a_sample_of_rows_depends_on_no_order() -> None:
    rows = np.random.default_rng(0).normal(size=(5_000, 3))
    rows[7, 1] = np.nan
    forward, backward = RowSample(500), RowSample(500)
    for part in np.array_split(rows, 9):
        forward.update(part)
    for part in np.array_split(rows[::-1], 4):
        backward.update(part)
    np.testing.assert_array_equal(forward.rows, backward.rows)
    assert len(forward.rows) == 500
    assert abs(forward.rows.mean(axis=0)).max() < 0.2
    few = RowSample(500)
    few.update(rows[:100])
    assert len(few.rows) == 99
