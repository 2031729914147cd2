"""Every kind of design comes from its section, with a target beside it where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from multimem_ray.config import DesignConfig
from multimem_ray.design import make_design
from multimem_ray.design.given import Given
from multimem_ray.design.membership import (
    Candidate,
    ComplementaryHalves,
    LeaveSubsetOut,
    ThreeFolds,
)
from multimem_ray.design.target import Targeted

GIVEN = {"kind": "given", "given": [{"checkpoint": c, "members": "all"} for c in "ab"]}


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ({}, ComplementaryHalves),
        ({"kind": "leave_subset_out"}, LeaveSubsetOut),
        ({"kind": "candidate"}, Candidate),
        ({"kind": "three_folds", "models": 3}, ThreeFolds),
        (GIVEN, Given),
    ],
)
def test_the_section_decides(section: dict[str, Any], kind: type) -> None:
    assert type(make_design(DesignConfig.model_validate(section))) is kind
    target = {"target": {"checkpoint": "c", "members": "none"}}
    design = make_design(DesignConfig.model_validate(section | target))
    assert isinstance(design, Targeted)
    assert type(design.references) is kind
    assert design.model_ids()[-1] == "target"
