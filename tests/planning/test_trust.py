"""What a plan expects of more models: from scores, from a pair, or from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimem_ray.planning.trust import ELSEWHERE, Trust, expected_trust
from multimem_ray.results.summary import summarize
from multimem_ray.run import Run
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run
from tests.results.test_estimate import population
from tests.small import small_config


def expected(run: FakeRun, folder: Path, *sets: str) -> Trust | None:
    config = small_config(folder, Path(run.output), *sets)
    return expected_trust(Run(config, {}, None))


@pytest.mark.parametrize(("kind", "block"), [("complementary_halves", 2), ("three_folds", 3)])
def test_scores_that_are_there_tell(tmp_path: Path, kind: str, block: int) -> None:
    run = fake_run(tmp_path, kind=kind, models=4 * block)
    trust = expected(run, tmp_path, f"design.kind={kind}", f"design.models={4 * block}")
    assert trust is not None
    assert trust.source == f"from the {4 * block} models that are scored"
    by_models = {row["models"]: row for row in trust.as_json()["rows"]}
    assert list(by_models) == [block * blocks for blocks in (1, 2, 4, 8, 16)]
    ranks = summarize(run.output, Storage())["reliability"]["ranks"]["multimem"]
    assert by_models[4 * block]["reliability"] == pytest.approx(ranks["value"])
    assert by_models[4 * block]["limit"] == pytest.approx(ranks["limit"])
    name, said = list(trust.lines())[1]
    assert name == f"with {2 * block} models"
    assert "% of the most memorized fifth" in said


def test_one_pair_tells_by_its_held_out_set(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=2)
    population(run, 2)
    trust = expected(run, tmp_path)
    assert trust is not None
    assert "first pair" in trust.source
    values = [row.reliability for row in trust.rows]
    assert values == sorted(values)
    assert 0.2 < values[0] < 0.8
    assert "no list" in next(iter(trust.lines()))[1]


def test_without_scores_figures_come_from_elsewhere_and_are_said_to(tmp_path: Path) -> None:
    nothing = FakeRun(str(tmp_path / "none"), "")
    trust = expected(nothing, tmp_path)
    assert trust is not None
    assert list(trust.lines())[-1] == ("these figures", ELSEWHERE)
    json.dumps(trust.as_json())
    assert trust.models_for(0.5) == 4
    assert trust.models_for(0.95) is None
    lone = ("design.kind=leave_subset_out", "design.models=4")
    assert expected(nothing, tmp_path, *lone) is None
