"""The study of truth: its tables on simulated consistencies, and once through the product."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.experiments import judged as judging
from jobs.experiments import truth, truth_tables
from jobs.experiments.judged import Consistencies, judge
from multimem_ray.verdict.attack import Population
from tests.small import write_shards


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of a few bootstrap samples."""
    monkeypatch.setattr(judging, "DRAWS", 40)


def simulated(
    models: int, samples: int = 600, noise: float = 1.0, seed: int = 0, draw: int = 1
) -> Consistencies:
    """Pairs of models; the truth of a seed is one for all draws, and (N,) normal."""
    known = np.random.default_rng(seed).normal(size=samples)
    rng = np.random.default_rng([seed, draw])

    def of(memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = rng.random((len(memory), models // 2)) < 0.5
        member = np.stack([first, ~first], axis=2).reshape(len(memory), models).astype(float)
        error = noise * rng.normal(size=member.shape) / 2**0.5
        return member * memory[:, None] + error, member

    cmc, member = of(known)
    nobody = of(np.zeros(150))
    held_out = Population(nobody[0], nobody[1] == 1, paired=True, target=False)
    keys = tuple(f"a.tar:{i:04d}" for i in range(samples))
    return Consistencies(keys, cmc, member, np.zeros(samples), held_out)


def test_intervals_of_simulated_audits_hold_their_truth() -> None:
    audits, other = simulated(16), simulated(64, draw=2)
    rows = truth_tables.intervals(audits, other, 16).rows
    assert [row[0] for row in rows] == [2, 4, 8, 16]
    for row in rows[1:]:
        assert row[2].low < 0.96
        assert row[2].high > 0.94
        assert row[7].value < 1  # shrinking helps
    assert rows[1][3].high < 0.9  # 1.96 standard errors of four models are too few


def test_lists_of_planted_samples_are_as_false_as_they_say() -> None:
    audits = simulated(16)
    known = np.random.default_rng(0).normal(size=600)
    planted = {f"a.tar:{i:04d}" for i in np.flatnonzero(known > 1.5)}
    rows = truth_tables.listed(audits, planted, 16).rows
    assert rows[-1][3].value < 0.1
    assert rows[-1][4].value > rows[0][4].value


def test_a_recipe_of_half_the_variance_is_worth_twice_as_much() -> None:
    runs = {
        "today": (simulated(16, 2000, noise=2.0), 2, 0.5),
        "better": (simulated(8, 2000, noise=2**0.5, draw=5), 2, 0.5),
    }
    table = truth_tables.recipes(runs, simulated(64, 2000, draw=2), [])
    worth = {(row[0], row[1]): row[4] for row in table.rows}
    assert worth["today", 4] is None
    for models in (2, 4, 8):
        assert worth["better", models].value == pytest.approx(2, rel=0.2)


def test_proxies_of_the_same_truth_are_worth_their_cost_and_others_nothing() -> None:
    same = truth_tables.Proxies(simulated(16, 2000, draw=5), 0.25, 0.5)
    kinds = {"half": same}
    full, limit = simulated(16, 2000), simulated(64, 2000, draw=2)
    rows = truth_tables.proxies(full, limit, kinds, 16).rows
    correlation = {(row[0], row[1], row[2]): row[3].value for row in rows}
    assert correlation["half", 4, 16] > correlation["none", 16, 0]
    assert correlation["half", 4, 4] > correlation["none", 4, 0]
    worth = {(row[0], row[2]): row[5] for row in rows if row[5] is not None}
    assert worth["half", 16].value > 1.8  # 20 models for 8 models' operations
    shuffled = rows[-1]
    assert shuffled[0] == "of other samples"
    assert abs(shuffled[-1]) < 0.05
    assert shuffled[3].value == pytest.approx(correlation["none", 4, 0], abs=0.02)


def test_the_verdict_is_that_of_the_product() -> None:
    judged = judge(simulated(8))
    assert judged.q.min() < 0.01
    assert np.isfinite(judged.shrunk).all()
    assert np.corrcoef(judged.shrunk, judged.score)[0, 1] > 0.9


@pytest.mark.slow
def test_all_of_it_on_shards_of_ones_own(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", samples=60)
    sizes = {"epochs": 1, "batch-size": 8, "width": 4, "audits": 4, "truth": 4, "recipe": 2}
    sizes |= {"views": 1, "other-views": 1, "leave-out": 1}
    arguments = ["--quick", "--shards", str(shards / "*.tar"), "--out", str(tmp_path / "out")]
    arguments += [item for name, value in sizes.items() for item in (f"--{name}", str(value))]
    arguments += ["--only", "intervals", "lists", "recipes", "copies"]
    small = ["model.dim=16", "modalities.audio.seconds=0.2", "modalities.image.size=16"]
    truth.main([*arguments, "--set", *small])
    content = json.loads((tmp_path / "out" / "truth.json").read_text())
    assert [table["title"] for table in content["tables"]] == [
        "Intervals that hold the truth",
        "Lists with q ≤ 0.05",
        "Trust by training cost",
        "Exact copies",
    ]
    text = (tmp_path / "out" / "truth.md").read_text()
    assert "three_folds, stop_at 2/3" in text
