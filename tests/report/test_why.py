"""What is said of a card: the modality that does not fit, and whether the score may be chance."""

from __future__ import annotations

import pytest

from multimem_ray.report.why import doubt, misfit, misfit_words, standing

NAMES = ("audio", "image", "text")
ROW = {"unseen_audio": 0.3, "unseen_image": 0.2, "unseen_text": -0.12, "multimem": 0.4}


def test_the_modality_that_fits_least_is_named_with_its_distance() -> None:
    assert misfit(ROW, NAMES) == "text"
    assert "The text fits the others least: −0.120, the next 0.200" in misfit_words(ROW, NAMES)


def test_of_two_modalities_neither_is_the_odd_one() -> None:
    two = ROW | {"unseen_audio": None}
    assert misfit(two, NAMES) is None
    assert misfit_words(two, NAMES) == ""


@pytest.mark.parametrize(
    ("low", "high", "q", "stands", "said"),
    [
        (0.1, 0.5, 0.01, "memorized", ""),
        (0.1, 0.5, 0.31, "memorized", "31 % would be false"),
        (-0.04, 0.67, 0.3, "noise", "not distinguishable from noise: 95 % interval −0.040 to 0.67"),
        (-0.5, -0.1, 0.9, "below", ""),
        (None, None, None, "unknown", "no interval"),
    ],
)
def test_doubt_follows_the_interval_and_q(
    low: float | None, high: float | None, q: float | None, stands: str, said: str
) -> None:
    row = ROW | {"multimem_low": low, "multimem_high": high, "multimem_q": q}
    assert standing(row) == stands
    assert said in doubt(row)
    assert bool(doubt(row)) == bool(said)
