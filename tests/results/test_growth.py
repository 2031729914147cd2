"""How many models a run gets: decisions from made-up scores and timings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.config import DesignConfig
from multimem_ray.results.growth import NAME, grow, growth_words
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run

FINGERPRINT = "feedfacefeedface"


def decide(run: FakeRun, models: int, hours: float = 1.0, **keys: Any) -> dict[str, Any]:
    """The decision for a run of which each model takes so many hours, and scoring a tenth."""
    timings = [
        {"stage": "train", "seconds": 3600 * hours * models, "done": models, "fingerprint": "old"},
        {
            "stage": "score",
            "seconds": 360 * hours * models,
            "done": 3,
            "fingerprint": FINGERPRINT,
        },
    ]
    design = DesignConfig.model_validate({"models": "auto", **keys})
    design = design.model_copy(update={"models": models})
    return grow(ScoreTable(run.output, Storage()), design, 2, timings)


def measured(run: FakeRun) -> float:
    value: float = summarize(run.output, Storage())["reliability"]["ranks"]["multimem"]["value"]
    return value


def test_it_ends_when_the_ranking_is_as_reliable_as_asked(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    value = measured(run)
    decision = decide(run, 4, reliability=value - 0.01)
    assert (decision["next"], decision["stopped"]) == (None, "reliability")
    assert decision["steps"][-1]["reliability"] == pytest.approx(value)
    assert growth_words(decision)[0].endswith(": reached")


def test_as_many_are_added_as_the_formula_says(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    value = measured(run)
    one = value / (2 - value)
    for asked in (value + 0.01, 3 * one / (1 + 2 * one) - 0.001):
        assert decide(run, 4, reliability=asked)["next"] == 6
    four = 4 * one / (1 + 3 * one)
    assert decide(run, 4, reliability=four - 0.001)["next"] == 8
    high = decide(run, 4, reliability=0.99)
    assert high["next"] == 8, "never more than twice as many at once"
    assert growth_words(high)[0].endswith("; goes on with 8")


def test_bound_and_budget_end_it(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    bound = decide(run, 4, reliability=0.99, max_models=6)
    assert bound["next"] == 6
    six = fake_run(tmp_path / "six", models=6)
    bound = decide(six, 6, reliability=0.99, max_models=7)
    assert (bound["next"], bound["stopped"]) == (None, "bound")
    assert "design.max_models = 7" in growth_words(bound)[0]
    # 4.4 hours are spent; six models would take 2 more, and 0.6 to be scored.
    rich = decide(run, 4, reliability=0.99, budget_hours=7.1)
    assert rich["next"] == 6
    poor = decide(run, 4, reliability=0.99, budget_hours=6.9)
    assert (poor["next"], poor["stopped"]) == (None, "budget")
    assert "4.4 of 6.9 hours" in growth_words(poor)[0]


def test_a_budget_alone_is_spent(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    assert decide(run, 4, budget_hours=100)["next"] == 8
    ended = decide(run, 4, budget_hours=5)
    assert ended["asked"] is None
    assert ended["stopped"] == "budget"


def test_the_steps_are_kept_and_told(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=8)
    kept = Path(run.output, NAME)
    kept.write_text(json.dumps({"steps": [{"models": 4}, {"models": 8}]}))
    decision = decide(run, 8, reliability=0.2)
    assert [step["models"] for step in decision["steps"]] == [4, 8]
    assert json.loads(kept.read_text()) == decision
    assert summarize(run.output, Storage())["growth"] is None, "its number of models was given"
    document = json.loads(Path(run.output, "run.json").read_text())
    document["config"]["design"] |= {"max_models": 32, "reliability": 0.2}
    Path(run.output, "run.json").write_text(json.dumps(document))
    assert summarize(run.output, Storage())["growth"] == decision
    assert growth_words(None) == []


def test_too_few_samples_end_it(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=1, rows=3)
    decision = decide(run, 4)
    assert (decision["next"], decision["stopped"]) == (None, "unknown")
    assert "so few samples" in growth_words(decision)[0]
