"""What one model chooses among its samples, and what becomes of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from multimem_ray.config import MitigationConfig
from multimem_ray.design.key_list import hashed
from multimem_ray.mitigation.choice import CHOSEN, MitigationPolicy
from multimem_ray.mitigation.policy import OBSERVED, ORDINARY
from multimem_ray.mitigation.reference_scores import ReferenceScores

NAMES = ("audio", "image", "text")
KEYS = [f"s{number}" for number in range(10)]
VIEWS = {name: np.zeros(2) for name in NAMES}
NO_MODEL: Any = None


def references() -> ReferenceScores:
    """Ten samples; the consistency of s0 is the lowest, and its picture fits least."""
    ids = hashed(KEYS)
    order = np.argsort(ids)
    falling = -np.arange(10.0)[order]
    scores = dict.fromkeys(("multimem", "clipmem", "unseen_clipmem"), falling)
    return ReferenceScores(
        ids[order],
        scores | {"cmc_out": -falling},
        np.ones(10, np.int8),
        np.zeros(10, bool),
        np.tile([True, False], (10, 1)),
    )


def policy(number: int = 0, **settings: Any) -> MitigationPolicy:
    given = {"kind": "in_training", "references": "x", "by": "cmc_out", "percent": 20.0}
    config = MitigationConfig.model_validate(given | settings)
    return MitigationPolicy(config, references(), NAMES, number)


def chosen(one: MitigationPolicy) -> set[str]:
    return {key for key in KEYS if int(hashed([key])[0]) in one.chosen}


def test_the_least_consistent_members_are_chosen() -> None:
    one, other = policy(), policy(number=1)
    for model in (one, other):
        model.begin(0, NO_MODEL)
    assert chosen(one) == {"s0", "s1"}
    assert chosen(other) == set(), "none of them is its member"
    assert one.end(0)["chosen"] == 2


@pytest.mark.parametrize("treatment", ["augment", "unpair", "drop"])
def test_what_is_chosen_is_treated(treatment: str) -> None:
    one = policy(treatment=treatment, noise=0.3)
    assert one.groups[0] == ORDINARY
    assert one.groups[-1] == OBSERVED
    one.begin(0, NO_MODEL)
    assert one.assign("s7", VIEWS, None) == (ORDINARY, VIEWS)
    other = {"audio": np.ones(2)}
    assigned = one.assign("s0", VIEWS, lambda: other)
    if treatment == "augment":
        assert assigned == (one.groups[1], other)
        assert (one.groups[1].noise, one.groups[1].fewest) == (0.3, 2)
    elif treatment == "unpair":
        assert assigned is not None
        assert (assigned[0], sorted(assigned[1])) == (ORDINARY, ["audio", "text"])
        two = {name: VIEWS[name] for name in ("audio", "image")}
        assert one.assign("s0", two, None) is None
    else:
        assert assigned is None


def test_a_checkpoint_and_a_file_hold_what_is_chosen() -> None:
    one, other = policy(), policy()
    one.begin(0, NO_MODEL)
    other.load(one.state())
    assert other.chosen == dict(sorted(one.chosen.items()))
    table = pq.read_table(io.BytesIO(one.files()[CHOSEN])).to_pydict()
    assert set(table["id"]) == set(one.chosen)
    assert table["misfit"] == ["image", "image"]


def test_by_cosine_the_samples_that_fit_least_are_chosen_after_an_epoch() -> None:
    one = policy(by="cosine", every=1, treatment="drop")
    one.begin(0, NO_MODEL)
    assert one.observes
    assert chosen(one) == set()
    angles = torch.linspace(1.5, 0.0, 10)
    a = torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    b = torch.stack([angles.cos(), angles.sin()], dim=1)
    rows = torch.arange(10)
    one.observe(KEYS, {"audio": a, "image": b}, {"audio": rows, "image": rows}, NO_MODEL)
    line = one.end(0)
    assert line["chosen"] == 2
    assert line["mitigation_s"] > 0
    assert chosen(one) == {"s0", "s1"}
    one.begin(1, NO_MODEL)
    assert one.assign("s0", VIEWS, None) == (OBSERVED, VIEWS), "it is looked at for the next choice"
