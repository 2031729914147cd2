from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from multimem_ray.results.arrays import floats, lists
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from multimem_ray.store.names import partition_of, shard_id
from multimem_ray.store.schema import error_schema
from multimem_ray.verdict.moderation import LogVariances
from tests.results.fake_run import fake_run


def test_numbers_equal_those_of_the_rows(tmp_path: Path) -> None:
    run = fake_run(tmp_path, undefined=3)
    found = summarize(ScoreTable(run.output, Storage(), batch_rows=41))
    for column in ("multimem", "multimem_normalized", "multimem_se", "cmc_in", "cmc_out"):
        values = run.column(column)
        known = values[~np.isnan(values)]
        score = found["scores"][column]
        assert score["count"] == len(known)
        assert score["mean"] == pytest.approx(known.mean())
        assert score["std"] == pytest.approx(known.std(ddof=1))
        expected = np.quantile(known, 0.95, method="inverted_cdf")
        assert score["quantiles"]["0.95"] == pytest.approx(expected)
        histogram = found["histograms"][column]
        total = sum(histogram["counts"]) + histogram["below"] + histogram["above"]
        assert total == len(known)
    for row in found["attribution"]:
        assert row["mean"] == pytest.approx(
            np.nanmean(run.column(f"attribution_{row['modality']}"))
        )
    means = [row["mean"] for row in found["attribution"]]
    assert means == sorted(means, reverse=True)
    assert sum(means) == pytest.approx(found["scores"]["multimem"]["mean"])
    assert found["pairs"][0]["pair"] == ["audio", "image"]
    assert found["pairs"][0]["mean"] == pytest.approx(np.nanmean(run.column("pair_audio_image")))
    json.dumps(found, allow_nan=False)


def test_coverage_adds_up(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    found = summarize(run.output, Storage())["coverage"]
    assert (found["scored"], found["held_out"], found["errors"]) == (600, 30, 9)
    assert found["damaged"] == 3
    assert found["samples"] == 600 + 30 + 6
    assert found["agrees"]
    kinds = {(e["stage"], e["error"]): e["count"] for e in found["errors_by"]}
    assert kinds["decode", "undecodable"] == 3
    assert found["shards"]["missing"] == ["/data/set-00099.tar"]
    assert found["shards"]["pending"] == 0


def test_missing_shards_are_listed_and_not_counted_as_samples(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    before = summarize(run.output, Storage())["coverage"]
    url = "/data/set-00099.tar"
    row = {"shard": url, "key": None, "index": None, "stage": "read"}
    table = pa.Table.from_pylist(
        [row | {"error": "missing_shard", "detail": "x"}], schema=error_schema()
    )
    place = Path(run.output, "errors", partition_of(url, 16))
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, place / f"{shard_id(url)}.parquet")
    after = summarize(run.output, Storage())["coverage"]
    assert {e["error"]: e["count"] for e in after["errors_by"]}["missing_shard"] == 1
    assert {**after, "errors_by": None} == {**before, "errors_by": None}


def test_coverage_tells_when_the_sums_disagree(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    min(Path(run.output, "errors").rglob("*.parquet")).unlink()
    found = summarize(run.output, Storage())["coverage"]
    assert not found["agrees"]
    assert found["disagreements"] == ["9 errors were committed, 6 are in errors/"]


def test_models_on_members_others_and_held_out(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    found = summarize(run.output, Storage())["models"]
    cmc = np.array([r["cmc"] for r in run.rows], dtype=np.float32)
    member = np.array([r["member"] for r in run.rows])
    assert [row["model"] for row in found] == ["000", "001", "002", "003"]
    for place, row in enumerate(found):
        assert row["members"] == pytest.approx(cmc[member[:, place], place].mean(), rel=1e-5)
        assert row["others"] == pytest.approx(cmc[~member[:, place], place].mean(), rel=1e-5)
        assert row["member_count"] + row["other_count"] == 600
    assert sum(row["level_gap"] for row in found) == pytest.approx(0, abs=1e-9)


def test_labels_and_splits(tmp_path: Path) -> None:
    run = fake_run(tmp_path, kind="candidate")
    found = summarize(run.output, Storage())
    splits = {row["group"]: row for row in found["splits"]}
    assert set(splits) == {"S_S", "S_C", "S_I"}
    assert splits["S_C"]["multimem"] > 0.05 > -0.05 > splits["S_I"]["multimem"]
    assert splits["S_S"]["multimem"] == pytest.approx(0.0, abs=0.1)
    label = found["labels"]["groups"][0]
    rows = [r["multimem"] for r in run.rows if r["label"] == label["group"]]
    assert label["count"] == len(rows)
    assert label["multimem"] == pytest.approx(np.mean(rows))
    expected = np.std(rows, ddof=1) / np.sqrt(len(rows))
    assert label["multimem_se"] == pytest.approx(expected)


def test_reliability_is_the_stepped_up_split_half_correlation(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=4)
    found = summarize(run.output, Storage())["reliability"]
    cmc = np.array([r["cmc"] for r in run.rows], dtype=np.float32)
    member = np.array([r["member"] for r in run.rows])
    halves = [np.where(member[:, a], 1, -1) * (cmc[:, a] - cmc[:, a + 1]) for a in (0, 2)]
    r = np.corrcoef(*halves)[0, 1]
    assert found["multimem"] == pytest.approx(2 * r / (1 + r), rel=1e-4)
    assert found["reason"] is None


@pytest.mark.parametrize(
    ("kind", "models", "words"),
    [("complementary_halves", 2, "at least 4"), ("leave_subset_out", 5, "no independent pairs")],
)
def test_reliability_says_why_it_is_unknown(
    tmp_path: Path, kind: str, models: int, words: str
) -> None:
    found = summarize(fake_run(tmp_path, kind=kind, models=models).output, Storage())
    assert found["reliability"]["multimem"] is None
    assert words in found["reliability"]["reason"]


def test_noise_shares(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    found = summarize(run.output, Storage())["noise"]
    score, variance = run.column("multimem"), np.square(run.column("multimem_pair_se"))
    moments = LogVariances(1)
    moments.update(variance)
    prior = moments.prior()
    error = np.sqrt(prior.moderated(variance, 1))
    assert found["above"] == pytest.approx((score > prior.quantile(1) * error).mean())
    assert found["mean_se"] == pytest.approx(error.mean())
    assert found["by_chance"] == pytest.approx(0.025), "nothing of the held-out set was kept"
    q = false_discovery_control(prior.p_values(score, error, 1))
    for row in found["lists"]:
        assert row["count"] <= (q <= row["q"]).sum() <= row["count"] + 8


def test_two_models_have_no_standard_error(tmp_path: Path) -> None:
    found = summarize(fake_run(tmp_path, models=2).output, Storage())
    assert found["noise"]["mean_se"] is None
    assert found["scores"]["multimem_se"]["count"] == 0
    assert found["attribution"][0]["mean_standing_out"] is None


def test_nothing_scored(tmp_path: Path) -> None:
    found = summarize(str(tmp_path / "none"), Storage())
    assert found["coverage"]["scored"] == 0
    assert found["plane"] is None
    json.dumps(found, allow_nan=False)


def test_no_labels(tmp_path: Path) -> None:
    found = summarize(fake_run(tmp_path, labels=None).output, Storage())
    assert found["labels"]["total"] == 0


@given(st.lists(st.one_of(st.none(), st.lists(st.floats(width=32), min_size=3, max_size=3))))
def test_list_columns_keep_rows_in_place(rows: list[list[float] | None]) -> None:
    found = lists(pa.array(rows, pa.list_(pa.float32())))
    assert len(found) == len(rows)
    if found.shape[1]:
        expected = [[np.nan] * 3 if r is None else r for r in rows]
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_numbers_of_any_type() -> None:
    np.testing.assert_array_equal(floats(pa.array([1, None], pa.int32())), [1.0, np.nan])
    np.testing.assert_array_equal(floats(pa.array([True, None])), [1.0, np.nan])


def test_reliability_grows_with_the_models(tmp_path: Path) -> None:
    run = fake_run(tmp_path, models=8)
    found = summarize(run.output, Storage())["reliability"]
    assert [row["models"] for row in found["growth"]] == [2, 4, 8, 16]
    assert [row["forecast"] for row in found["growth"]] == [False, False, False, True]
    for name in ("multimem", "cmc_out"):
        values = [row[name] for row in found["growth"]]
        assert values == sorted(values)
        assert values[2] == pytest.approx(found[name])
        one = values[0]
        assert values[3] == pytest.approx(8 * one / (1 + 7 * one))
