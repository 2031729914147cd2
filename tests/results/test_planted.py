from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from multimem_ray.errors import ConfigError
from multimem_ray.results.planted import evaluate_planted
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


def test_auroc_of_each_method_equals_scikit_learn(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    found = evaluate_planted(ScoreTable(run.output, Storage()), run.truth)
    truth = pq.read_table(run.truth).to_pylist()
    planted = np.array([t["planted"] for t in truth])
    cmc = np.array([r["cmc"] for r in run.rows], dtype=np.float32)
    first = np.array([r["member"].index(True) for r in run.rows])
    suspicion = {
        "multimem": run.column("multimem"),
        "cmc_out": -run.column("cmc_out"),
        "one_model": -cmc[np.arange(len(cmc)), first],
    }
    for name, score in suspicion.items():
        method = found["methods"][name]
        assert method["auroc"] == pytest.approx(roc_auc_score(planted, score))
        at_planted = next(p for p in method["precision"] if p["k"] == planted.sum())
        best = np.argsort(-score, kind="stable")[: planted.sum()]
        assert at_planted["precision"] == pytest.approx(planted[best].mean())
        assert sum(m["planted"] for m in method["by_modality"]) == planted.sum()
    assert found["planted"] == planted.sum()
    assert found["samples"] == 600
    assert found["unmatched"] == 0


def test_shards_may_have_moved_and_rows_been_mixed(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    before = evaluate_planted(table, run.truth)
    rows = pq.read_table(run.truth)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    rows = rows.take(order)
    moved = [f"s3://bucket/{Path(s).name}" for s in rows["shard"].to_pylist()]
    pq.write_table(rows.set_column(0, "shard", pa.array(moved)), run.truth)
    assert evaluate_planted(table, run.truth) == before


def test_samples_outside_the_truth_are_counted(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    pq.write_table(pq.read_table(run.truth).slice(0, 250), run.truth)
    found = evaluate_planted(ScoreTable(run.output, Storage()), run.truth)
    assert (found["samples"], found["unmatched"]) == (250, 350)


def test_all_methods_are_judged_on_the_same_samples(tmp_path: Path) -> None:
    run = fake_run(tmp_path, undefined=20)
    found = evaluate_planted(ScoreTable(run.output, Storage()), run.truth)
    assert found["samples"] == 540


def test_a_truth_that_cannot_serve(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    rows = pq.read_table(run.truth)
    pq.write_table(rows.drop_columns(["planted"]), run.truth)
    with pytest.raises(ConfigError, match="no column planted"):
        evaluate_planted(table, run.truth)
    other = pa.array([f"other-{i}" for i in range(rows.num_rows)])
    pq.write_table(rows.set_column(1, "key", other), run.truth)
    with pytest.raises(ConfigError, match="none of the 600"):
        evaluate_planted(table, run.truth)
    Path(run.truth).write_text("key,planted")
    with pytest.raises(ConfigError, match="not a Parquet"):
        evaluate_planted(table, run.truth)
