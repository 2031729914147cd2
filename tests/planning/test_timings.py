"""What a run took, attempt by attempt, beside what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.planning.timings import OTHER, compare, record, save_plan
from multimem_ray.run import Run
from tests.small import small_run

ESTIMATE = {"train_s": 100.0, "score_s": 50.0, "cpus": 2, "gpus": 0}


def run_with_plan(tmp_path: Path) -> Run:
    run, _ = small_run(tmp_path)
    save_plan(run, {"estimate": ESTIMATE})
    return run


def test_attempts_add_up(tmp_path: Path) -> None:
    run = run_with_plan(tmp_path)
    record(run, "train", 90.0, 4, 2, 0)
    assert compare(run.output, run.storage) is None, "not over yet"
    record(run, "score", 30.0, 3, 2, 0)
    record(run, "train", 0.1, 0, 2, 0)  # nothing was left to train
    record(run, "score", 30.0, 1, 2, 0)
    found = compare(run.output, run.storage)
    assert found is not None
    assert found["train"] == {"estimated_s": 100.0, "actual_s": 90.0, "ratio": 0.9}
    assert found["score"]["ratio"] == pytest.approx(1.2)
    assert found["total"]["ratio"] == pytest.approx(1.0)
    assert found["same_cluster"]


def test_what_is_neither_is_compared_where_it_was_expected(tmp_path: Path) -> None:
    run = run_with_plan(tmp_path)
    record(run, "train", 90.0, 4, 2, 0)
    record(run, "score", 60.0, 4, 2, 0)
    record(run, OTHER, 12.0, 1, 2, 0)
    found = compare(run.output, run.storage)
    assert found is not None
    assert OTHER not in found, "a plan of before knew of no such part"
    save_plan(run, {"estimate": ESTIMATE | {"other_s": 10.0}})
    found = compare(run.output, run.storage)
    assert found is not None
    assert found[OTHER]["ratio"] == pytest.approx(1.2)
    assert found["total"] == {"estimated_s": 160.0, "actual_s": 162.0, "ratio": 162 / 160}


def test_another_cluster_is_told(tmp_path: Path) -> None:
    run = run_with_plan(tmp_path)
    record(run, "train", 90.0, 4, 16, 1)
    record(run, "score", 30.0, 3, 16, 1)
    found = compare(run.output, run.storage)
    assert found is not None
    assert not found["same_cluster"]


def test_without_an_estimate_there_is_nothing_to_compare(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    record(run, "train", 90.0, 4, 2, 0)
    record(run, "score", 30.0, 3, 2, 0)
    assert compare(run.output, run.storage) is None


def test_an_estimate_of_another_configuration_does_not_count(tmp_path: Path) -> None:
    run_with_plan(tmp_path)
    other, _ = small_run(tmp_path, "training.epochs=5")
    record(other, "train", 90.0, 4, 2, 0)
    record(other, "score", 30.0, 3, 2, 0)
    assert compare(other.output, other.storage) is None
