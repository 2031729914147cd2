"""Means and shares by a field, against sums over the rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import multimem_ray as mm
from multimem_ray.errors import ConfigError
from multimem_ray.results.catalogue import Catalogue
from multimem_ray.results.domains import (
    Domains,
    catalogued_domains,
    domains,
    write_domains,
)
from multimem_ray.results.select import Wanted
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run
from tests.small import QUIET


def frame(made: Domains) -> pd.DataFrame:
    return made.table.to_pandas().set_index("value")


def rewrite(run: FakeRun, change: object) -> None:
    """Every score file with its rows changed, metadata as before."""
    for path in Path(run.output, "scores").rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        rows = table.to_pandas()
        change(rows)
        pq.write_table(pa.Table.from_pandas(rows, table.schema, preserve_index=False), path)


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    run = fake_run(tmp_path, undefined=7)
    scores = mm.open_scores(run.output)
    made = scores.domains("label")
    rows = scores.pandas(["label", "multimem", "cmc_out", "multimem_q"])
    assert made.whole["scored"] == rows["multimem"].notna().sum() == 600 - 21
    every = rows["multimem"].dropna()
    assert made.whole["mean"] == pytest.approx(every.mean())
    reach = stats.t.ppf(0.975, len(every) - 1) * np.hypot(every.sem(), made.whole["models_se"])
    assert made.whole["high"] - made.whole["mean"] == pytest.approx(reach)
    assert made.whole["share_low"] < made.whole["share"] < made.whole["share_high"]
    told = frame(made)
    assert sorted(told.index) == sorted(rows["label"].unique())
    for label, own in rows.groupby("label"):
        row, score = told.loc[label], own["multimem"].dropna()
        listed = (own["multimem_q"] <= 0.05) & own["multimem"].notna()
        assert (row["samples"], row["scored"], row["listed"]) == (
            len(own),
            len(score),
            listed.sum(),
        )
        assert row["mean"] == pytest.approx(score.mean())
        assert row["cmc_out"] == pytest.approx(own["cmc_out"].mean())
        assert row["share"] == pytest.approx(listed.sum() / len(score))
        se = np.hypot(score.sem(), made.whole["models_se"])
        reach = stats.t.ppf(0.975, len(score) - 1) * se
        assert row["low"] == pytest.approx(score.mean() - reach)
        assert row["high"] == pytest.approx(score.mean() + reach)
    assert list(told["shrunk"]) == sorted(told["shrunk"], reverse=True)


def test_another_list_can_be_asked_for(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    made = mm.open_scores(run.output).domains("label", listed=Wanted(percent=10))
    assert made.listed == "the highest 10 %"
    assert frame(made)["listed"].sum() == 60


def test_copies_count_as_one_draw(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=1, rows=300, labels=None)
    table = ScoreTable(run.output, Storage())
    (alone,) = domains(table, "shard").table.to_pylist()
    one = pq.read_table(next(Path(run.output, "scores").rglob("*.parquet")), partitioning=None)

    def three_of_each(rows: pd.DataFrame) -> None:
        source = one.to_pandas().iloc[:100].loc[lambda t: t.index.repeat(3)].reset_index(drop=True)
        for column in rows.columns.difference(["key", "index"]):
            rows[column] = source[column]
        rows["group"] = [f"g{n // 3}" for n in range(300)]

    rewrite(run, three_of_each)
    (copied,) = domains(ScoreTable(run.output, Storage()), "shard").table.to_pylist()
    first = one.to_pandas()["multimem"].iloc[:100]
    assert copied["mean"] == pytest.approx(first.mean())
    # Not less than what a hundred samples tell, whatever the number of their copies.
    reach = stats.t.ppf(0.975, 99) * first.sem()
    assert copied["high"] - copied["mean"] >= 0.999 * reach
    assert copied["share_high"] - copied["share_low"] > alone["share_high"] - alone["share_low"]


def test_what_models_add_to_a_whole_domain_widens_its_interval(tmp_path: Path) -> None:
    """One pair of models sees more in label 0, the other less: no number of samples helps."""
    run = fake_run(tmp_path, rows=2_000, planted=0.0)
    before = frame(domains(ScoreTable(run.output, Storage()), "label"))

    def shifted(rows: pd.DataFrame) -> None:
        for at, (cmc, member, label) in enumerate(
            zip(rows["cmc"], rows["member"], rows["label"], strict=True)
        ):
            way = 0.2 if int(label) % 2 else -0.2
            moved = np.array(cmc) + np.array(member) * np.array([way, way, -way, -way])
            rows.at[at, "cmc"] = moved.astype(np.float32)

    rewrite(run, shifted)
    made = domains(ScoreTable(run.output, Storage()), "label")
    after = frame(made)
    # Pair scores ± 0.2 around the mean: the mean of two has a standard error of 0.2.
    assert made.whole["models_se"] == pytest.approx(0.2, rel=0.1)
    assert (after["high"] - after["low"]).min() > 5 * (before["high"] - before["low"]).max()


def test_fields_of_the_json_come_from_the_catalogue(finished: str) -> None:
    scores = mm.open_scores(finished)
    keys = scores.pandas(["key", "multimem"])
    number = keys["key"].str[1:].astype(int)
    made = scores.domains("source", progress=QUIET)
    assert made.by == "json.source"
    assert frame(made)["samples"].to_dict() == (
        keys.groupby("tape-" + (number // 10).astype(str)).size().to_dict()
    )
    hosts = frame(scores.domains("host", progress=QUIET))
    counts = keys.groupby("host" + (number % 3).astype(str) + ".example").size()
    assert hosts["samples"].to_dict() == counts.to_dict()
    with pytest.raises(ConfigError, match=r"no scored sample has a json\.sorce"):
        scores.domains("sorce", progress=QUIET)
    with pytest.raises(ConfigError, match=r"json\.labl; did you mean 'label'"):
        scores.domains("labl", progress=QUIET)


def test_the_table_is_written_with_what_it_is_of(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    made = domains(table, "label")
    url = write_domains(table, made)
    assert url == f"{table.output}/domains/label.parquet"
    read = pq.read_table(url)
    assert read.to_pylist() == made.table.to_pylist()
    about = json.loads(read.schema.metadata[b"multimem_ray.domains"])
    assert about["whole"] == made.whole


def test_a_field_of_too_many_values_is_refused(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match="label has more than 5 values; ask for a coarser"):
        domains(table, "label", most=5)


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is scored yet"):
        domains(ScoreTable(str(tmp_path), Storage()), "label")


def test_what_is_catalogued_is_told_and_what_names_samples_is_not(
    finished: str, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("catalogue"))
    table = ScoreTable(str(copy), Storage())
    assert catalogued_domains(table) == []
    Catalogue(str(copy), Storage()).ensure(["json.source", "json.nothing"], QUIET)
    told = catalogued_domains(table)
    assert [made.by for made in told] == ["host of json.url", "json.source"]
    assert [made.by for made in catalogued_domains(table, most=3)] == ["host of json.url"]
