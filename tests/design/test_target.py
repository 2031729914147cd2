"""A target beside the references: who saw what, and what is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimem_ray.config import DesignConfig
from multimem_ray.design import make_design
from multimem_ray.design.target import TARGET
from multimem_ray.errors import ConfigError, DesignError
from multimem_ray.setup import resolve

KEYS = [f"k{number}" for number in range(200)]


def targeted(members: str, **settings: object) -> DesignConfig:
    target = {"checkpoint": "/models/mine", "members": members}
    return DesignConfig.model_validate({"models": 4, "target": target, **settings})


def test_the_target_against_the_references_that_did_not_see(tmp_path: Path) -> None:
    seen = tmp_path / "seen.txt"
    seen.write_text("\n".join(KEYS[:50]))
    design = make_design(targeted(str(seen)))
    references = make_design(DesignConfig(models=4))
    assert design.model_ids() == ["000", "001", "002", "003", TARGET]
    assert design.checkpoints() == {TARGET: "/models/mine"}
    members = design.members(KEYS)
    np.testing.assert_array_equal(members[:, :4], references.members(KEYS))
    np.testing.assert_array_equal(members[:, 4], [k < 50 for k in range(200)])
    f, g = design.contrast(KEYS)
    np.testing.assert_array_equal(f[:, 4], members[:, 4])
    assert not f[:, :4].any()
    np.testing.assert_array_equal(g[:, :4], ~references.members(KEYS))
    assert not g[:, 4].any()
    assert design.train_fractions() == [*references.train_fractions(), 0.0]
    assert design.describe()["target"]["members"] == str(seen)


def test_outside_the_pool_all_references_serve() -> None:
    design = make_design(targeted("all", pool=0.1))
    outside = ~design.in_pool(KEYS)
    assert outside.any()
    f, g = design.contrast(KEYS)
    assert g[outside, :4].all()
    assert f[:, 4].all()
    # The same for shards outside of design.pool_shards.
    members = design.outside_pool(KEYS)
    f, g = design.contrast_of(KEYS, members)
    assert members[:, 4].all()
    assert not members[:, :4].any()
    assert g[:, :4].all()


def test_what_the_target_saw_is_not_held_out() -> None:
    design = make_design(targeted("all"))
    assert design.seen_elsewhere(KEYS).all()
    assert not make_design(targeted("none")).seen_elsewhere(KEYS).any()
    raw = {
        "output": "o",
        "data": {"shards": "s"},
        "design": {"target": {"checkpoint": "/m", "members": "all"}},
    }
    with pytest.raises(ConfigError, match=r"nothing is left that neither.*held_out\.shards"):
        resolve(raw)
    resolve(raw | {"held_out": {"shards": "h.tar"}})


def test_what_the_target_saw_must_be_known() -> None:
    with pytest.raises(DesignError, match="/models/mine does not say what it trained on"):
        make_design(targeted("recorded")).members(KEYS)
    with pytest.raises(DesignError, match=r"members '/no\.txt' is none of all, none, recorded"):
        make_design(targeted("/no.txt")).members(KEYS)


def test_a_target_is_no_reference() -> None:
    given = {"checkpoint": "/models/mine", "members": "none"}
    other = {"checkpoint": "/models/other", "members": "none"}
    with pytest.raises(DesignError, match="list only the references there"):
        make_design(targeted("none", kind="given", given=[given, other]))
