"""Conditions over seeds, and the tests between them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from jobs.experiments.trials import (
    Condition,
    Record,
    control_table,
    mean_se,
    paired,
    run_trials,
    trial_table,
    values,
)
from tests.mitigation.small_audit import QUIET
from tests.small import small_config, write_shards


def record(seed: int, condition: str, score: float, recall: float) -> Record:
    memory = {"matched": score, "change": score - 1, "unmatched": 2.0, "corrected": 3.0}
    memory |= {"before": {"untouched": 1.0}, "after": {"untouched": score}}
    return {
        "seed": seed,
        "condition": condition,
        "memory": memory,
        "utility": {"R@5": recall},
        "overhead": None,
    }


RECORDS = [
    *(record(s, "none", 1.0, 0.5) for s in range(3)),
    *(record(s, "aimed", 0.7 + 0.01 * s, 0.55) for s in range(3)),
    *(record(s, "chance", 0.9 + 0.02 * s, 0.5) for s in range(2)),
]
CONDITIONS = [Condition("none"), Condition("aimed", about="aimed at"), Condition("chance")]


def test_conditions_are_compared_seed_by_seed() -> None:
    found = paired(RECORDS, "aimed", "chance", "memory/matched")
    differences = np.array([0.7 - 0.9, 0.71 - 0.92])
    assert found.seeds == 2
    assert found.mean == pytest.approx(differences.mean())
    assert found.se == pytest.approx(differences.std(ddof=1) / 2**0.5)
    t = found.mean / found.se
    # Student's t with one degree of freedom is Cauchy's distribution.
    assert found.p == pytest.approx(2 * (0.5 - math.atan(abs(t)) / math.pi), rel=1e-6)
    assert mean_se(values(RECORDS, "aimed", "memory/matched"))[0] == pytest.approx(0.71)
    with pytest.raises(ValueError, match="no seed in common"):
        paired(RECORDS, "aimed", "nothing", "memory/matched")


def test_tables_show_means_and_standard_errors() -> None:
    table = trial_table(RECORDS, CONDITIONS, "all")
    assert list(table.columns)[:4] == ["condition", "MultiMem", "change, %", "untouched, %"]
    aimed = dict(zip(table.columns, table.rows[1], strict=True))
    assert aimed["condition"] == "aimed at"
    assert aimed["MultiMem"] == "0.710 ± 0.006"
    assert aimed["change, %"] == "-29.0 ± 0.6"
    assert aimed["R@5, points"] == "5.0 ± 0.0"
    controls = control_table(RECORDS, "aimed", ["chance"], "controls")
    assert [row[1] for row in controls.rows] == ["MultiMem", "R@5"]


def test_trials_run_once_and_judge_by_their_baseline(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", 40)
    raw = small_config(shards, tmp_path / "x").model_dump(mode="json")
    del raw["output"]
    conditions = [
        Condition("none"),
        Condition("drop", ("mitigation.kind=in_training", "mitigation.by=cmc_out",
                           "mitigation.treatment=drop", "mitigation.percent=25")),
        Condition("noise", ("training.noise={audio: 0.5}",)),
    ]  # fmt: skip
    records = run_trials(raw, conditions, [0, 1], tmp_path / "trials", QUIET)
    assert [(r["seed"], r["condition"]) for r in records] == [
        (seed, c.name) for seed in (0, 1) for c in conditions
    ]
    assert values(records, "none", "memory/change") == {0: 0.0, 1: 0.0}
    assert all(abs(v) > 1e-6 for v in values(records, "noise", "memory/change").values())
    assert all(v > 0 for v in values(records, "drop", "memory/count/chosen").values())
    assert values(records, "noise", "memory/count/chosen") == {0: 0.0, 1: 0.0}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "trials").rglob("trial.json")}
    assert run_trials(raw, conditions, [0, 1], tmp_path / "trials", QUIET) == records
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "trials").rglob("trial.json")}
