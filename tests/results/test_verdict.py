"""The columns that rows get when they are read, against arrays and against what was simulated."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from multimem_ray.errors import ConfigError
from multimem_ray.results.estimate import estimate
from multimem_ray.results.select import Wanted, select_samples
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.results.verdict import DERIVED, Verdict
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run


def table_of(run: FakeRun) -> ScoreTable:
    return ScoreTable(run.output, Storage())


def read(table: ScoreTable, *columns: str) -> dict[str, np.ndarray]:
    rows = table.query(f"SELECT {', '.join(columns)} FROM scores", columns)
    return {c: np.array([math.nan if r[c] is None else r[c] for r in rows]) for c in columns}


@pytest.mark.parametrize(
    ("kind", "models"),
    [("complementary_halves", 4), ("complementary_halves", 8), ("three_folds", 6)],
)
def test_columns_are_those_of_the_formulas(tmp_path: Path, kind: str, models: int) -> None:
    table = table_of(fake_run(tmp_path, kind=kind, models=models, undefined=3))
    verdict = table.verdict
    got = read(table, "multimem", "multimem_pair_se", "cmc_out", *DERIVED)
    assert verdict.df == models // (3 if kind == "three_folds" else 2) - 1
    error = verdict.errors(got["multimem_pair_se"])
    np.testing.assert_allclose(got["multimem_error"], error, rtol=1e-12)
    reach = verdict.prior.quantile(verdict.df)
    np.testing.assert_allclose(got["multimem_low"], got["multimem"] - reach * error, rtol=1e-9)
    np.testing.assert_allclose(got["multimem_high"], got["multimem"] + reach * error, rtol=1e-9)
    assert verdict.shrinkage is not None
    shrunk = verdict.shrinkage.shrunk(np.stack([got["cmc_out"], got["multimem"]], axis=1))
    np.testing.assert_allclose(got["multimem_shrunk"], shrunk, rtol=1e-9)
    assert verdict.spread is not None
    np.testing.assert_allclose(got["multimem_shrunk_sd"], verdict.spread.sd(shrunk), rtol=1e-9)
    known = np.isfinite(error)
    p = verdict.prior.p_values(got["multimem"][known], error[known], verdict.df)
    expected = false_discovery_control(p)
    assert (got["multimem_q"][known] >= expected - 1e-12).all(), "never a longer list"
    np.testing.assert_allclose(got["multimem_q"][known], expected, rtol=0.1, atol=0.01)
    assert int(np.isnan(got["multimem"]).sum()) == 9
    assert all(np.isnan(got[c][np.isnan(got["multimem"])]).all() for c in DERIVED)


def test_the_summary_keeps_it_and_other_rows_need_another(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    summary = summarize(run.output, Storage())
    kept = Verdict.from_json(json.loads(json.dumps(summary["verdict"])))
    fresh = estimate(table_of(run))
    assert kept.q == fresh.q
    assert kept.prior.variance == pytest.approx(fresh.prior.variance, rel=1e-9)
    (Path(run.output) / "summary.json").write_text(json.dumps(summary))
    assert table_of(run).verdict.as_json() == kept.as_json()
    min(Path(run.output, "commits").iterdir()).unlink()
    assert table_of(run).verdict.as_json() != kept.as_json()


def test_lists_are_ranked_by_the_shrunk_score_unless_another_is_asked_for(tmp_path: Path) -> None:
    table = table_of(fake_run(tmp_path))
    best = top(table, n=5)
    assert [r["multimem_shrunk"] for r in best] == sorted(
        (r["multimem_shrunk"] for r in best), reverse=True
    )
    literal = top(table, "multimem", n=5)
    assert [r["multimem"] for r in literal] == sorted(r["multimem"] for r in literal)[::-1]
    two = table_of(fake_run(tmp_path / "two", models=2))
    assert two.verdict.ranks_by == "multimem"
    assert top(two, n=1)[0]["multimem_shrunk"] is None


def test_a_list_of_what_is_memorized_more_than_a_bound(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=8)
    table = table_of(run)
    made = select_samples(table, Wanted(more_than="0.2", fdr=0.05))
    truth = {r["key"] for r in run.rows if r["cmc_out"] is not None and r["cmc_out"] < 0.4}
    assert 0 < made.counts["removed"] < 100
    told = json.loads((Path(made.folder) / "selection.json").read_text())
    assert told["null"].startswith("null: not memorized more than 0.2; ")
    assert told["asked"] == {"more_than": "0.2", "fdr": 0.05}
    rows = read(table, "multimem_shrunk")["multimem_shrunk"]
    quantile = select_samples(table, Wanted(more_than="80%", fdr=0.3))
    assert quantile.counts["removed"] <= 0.3 * len(rows)
    assert truth


def test_a_list_of_what_is_memorized_at_all(tmp_path: Path) -> None:
    table = table_of(fake_run(tmp_path, models=8))
    made = select_samples(table, Wanted(fdr=0.05))
    q = read(table, "multimem_q")["multimem_q"]
    assert made.counts["removed"] == int((q <= 0.05).sum()) > 0
    assert "not memorized at all" in made.null


@pytest.mark.parametrize(
    "damage",
    [
        {"prior": None},
        {"q": {"runs": [[-(10**12), 0.5]]}},
        {"q": {"runs": [[0, 0.5], [0, 0.1]]}},
        {"views": "nothing"},
        {"spread": {"middle": 1}},
    ],
)
def test_a_damaged_verdict_in_the_summary_is_estimated_anew(
    tmp_path: Path, damage: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    run = fake_run(tmp_path)
    summary = summarize(run.output, Storage())
    good = summary["verdict"].copy()
    summary["verdict"] |= damage
    (Path(run.output) / "summary.json").write_text(json.dumps(summary))
    again = table_of(run).verdict.as_json()
    assert again["q"] == good["q"]
    assert again["spread"] == pytest.approx(good["spread"])
    assert "its verdict is damaged" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "models", "words"),
    [
        (Wanted(fdr=1.5), 4, "between 0 and 1"),
        (Wanted(more_than="0.2"), 4, "exactly one"),
        (Wanted(more_than="0.2", top=3), 4, "needs --fdr"),
        (Wanted(more_than="x", fdr=0.05), 4, "a score, as 0.3"),
        (Wanted(more_than="120%", fdr=0.05), 4, "a quantile, as 80%"),
        (Wanted(more_than="50", fdr=0.05), 4, "not even one sample"),
        (Wanted(more_than="0.2", fdr=0.05), 2, "two pairs of models"),
        (Wanted(fdr=0.05), 2, "design.models: 4"),
        (Wanted(by="multimem", fdr=0.05), 4, "leave --by out"),
    ],
)
def test_impossible_lists(tmp_path: Path, wanted: Wanted, models: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        select_samples(table_of(fake_run(tmp_path, models=models)), wanted)
