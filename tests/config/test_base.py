"""Differences of configurations, and what a key was meant to be."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from multimem_ray.config import Section, difference, nearest
from multimem_ray.setup import resolve

MINIMAL = {"output": "out", "data": {"shards": "*.tar"}}


def test_difference_names_what_changed() -> None:
    old = resolve(MINIMAL).score_relevant()
    new = resolve({**MINIMAL, "training": {"lr": 0.5}}).score_relevant()
    assert difference(old, new) == ["training.lr: 0.002 → 0.5"]


def test_the_nearest_name_is_offered_or_all_of_them() -> None:
    assert nearest("epoch", ["epochs", "lr"]) == "; did you mean 'epochs'?"
    assert nearest("zzz", ["lr", "epochs"]) == "; known: epochs, lr"


def test_a_section_is_closed_and_immutable() -> None:
    class Part(Section):
        size: int = 1

    with pytest.raises(ValidationError, match="Extra inputs"):
        Part.model_validate({"sise": 2})
    with pytest.raises(ValidationError, match="frozen"):
        Part().size = 2  # type: ignore[misc]
