"""Audits with cheaper reference models and other designs: scored, kept apart, resumed, grown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimem_ray.audit import audit
from multimem_ray.errors import ResumeError
from tests.small import QUIET, small_config, write_shards
from tests.test_audit import mtimes, scores


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=30, shards=2)


def audited(shards: Path, output: Path, *sets: str) -> dict[str, dict[str, Any]]:
    audit(small_config(shards, output, *sets), QUIET, executor="local")
    return scores(str(output))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("training.stop_at=0.5", "trained_epochs"),
        ("training.shared_init=true", "shared_init"),
    ],
)
def test_a_cheaper_training_is_a_run_of_its_own(
    shards: Path, tmp_path: Path, sets: str, said: str
) -> None:
    whole = audited(shards, tmp_path / "whole")
    cheaper = audited(shards, tmp_path / "cheaper", sets)
    assert whole.keys() == cheaper.keys()
    assert all(row["multimem"] is not None for row in cheaper.values())
    assert any(abs(whole[key]["multimem"] - row["multimem"]) > 1e-4 for key, row in cheaper.items())
    with pytest.raises(ResumeError, match=said):
        audited(shards, tmp_path / "whole", sets)


def test_three_folds_are_scored_resumed_and_grown(shards: Path, tmp_path: Path) -> None:
    output, folds = tmp_path / "folds", "design.kind=three_folds"
    three = audited(shards, output, folds, "design.models=3")
    assert {(row["n_in"], row["n_out"]) for row in three.values()} == {(2, 1)}
    assert all(row["multimem_se"] is None for row in three.values())
    models = mtimes(output / "models")
    assert audited(shards, output, folds, "design.models=3") == three
    six = audited(shards, output, folds, "design.models=6")
    assert all(row["multimem_se"] > 0 for row in six.values())
    after = mtimes(output / "models")
    assert {path: after[path] for path in models} == models, "the three were left alone"
    for key, row in six.items():
        assert row["cmc"][:3] == pytest.approx(three[key]["cmc"], abs=1e-5)
