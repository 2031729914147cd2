"""Without a mitigation, all samples are alike and nothing is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from multimem_ray.mitigation.choice import policies
from multimem_ray.mitigation.policy import ORDINARY, SamplePolicy
from tests.small import small_run


def test_all_samples_are_alike() -> None:
    policy, model = SamplePolicy(), None
    views = {"image": np.zeros(3), "text": np.ones(2)}
    unused: Any = model
    policy.begin(0, unused)
    assert policy.assign("k", views, None) == (ORDINARY, views)
    assert list(policy.groups) == [ORDINARY]
    assert policy.end(0) == policy.files() == {}
    assert policy.state() is None
    assert not policy.observes
    assert not policy.observes_first


def test_a_run_without_a_mitigation_reads_no_references(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    treatment = policies(run)
    assert type(treatment.of(1)) is SamplePolicy
    assert treatment.decoder is None
