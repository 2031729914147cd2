"""Mitigation: when it begins, and what it needs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from multimem_ray.config import MitigationConfig, ModelConfig, TrainingConfig


def mitigation(**keys: Any) -> MitigationConfig:
    return MitigationConfig.model_validate({"kind": "in_training", "references": "runs/a", **keys})


@pytest.mark.parametrize(
    ("keys", "watches", "first"),
    [
        ({}, False, 0),
        ({"by": "multimem"}, True, 10),
        ({"by": "cmc_out"}, False, 0),
        ({"by": "cosine", "start": 3}, True, 3),
        ({"kind": "post_training", "by": "multimem"}, False, 0),
        ({"kind": "post_training", "by": "cosine"}, True, 0),
    ],
)
def test_choices_wait_for_what_they_are_made_of(
    keys: dict[str, Any], watches: bool, first: int
) -> None:
    config = mitigation(**keys)
    assert (config.watches, config.first) == (watches, first)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"references": None}, "name the output of a finished audit"),
        ({"by": "list"}, "by: list goes with a list"),
        ({"samples": "x.txt"}, "by: list goes with a list"),
        ({"by": "multimem", "start": 0}, "needs an epoch of the model"),
    ],
)
def test_what_is_incomplete_says_so(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        mitigation(**keys)


def test_nothing_is_allowed_and_nothing_is_treated_by_default() -> None:
    assert ModelConfig().allow == []
    assert TrainingConfig().trackers == []
    assert not MitigationConfig().watches
