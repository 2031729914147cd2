from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.report import text
from multimem_ray.results.summary import summarize
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.1234, "0.123"), (-0.5, "−0.500"), (-0.0001, "0.000")]
)
def test_number(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (None, "–"),
        (0.5, "50.0 %"),
        (0.99999, "> 99.9 %"),
        (1.0, "100.0 %"),
        (1e-6, "< 0.1 %"),
        (0.0, "0.0 %"),
    ],
)
def test_percent_is_never_rounded_to_certainty(share: float | None, shown: str) -> None:
    assert text.percent(share) == shown


def test_plural_and_time() -> None:
    assert text.plural(1, "shard") == "1 shard"
    assert text.plural(12_345, "shard") == "12,345 shards"
    assert text.when(0.0) == "1970-01-01 00:00 UTC"


def test_headline_and_cautions_of_four_models(tmp_path: Path) -> None:
    summary = summarize(fake_run(tmp_path).output, Storage())
    assert "600 samples scored with 4 reference models" in text.headline(summary)
    said = " ".join(text.cautions(summary))
    assert "/data/set-00099.tar" in said
    assert "rests on two values" not in said, "errors are moderated by those of all samples"
    few = summarize(fake_run(tmp_path / "few", shards=1, rows=60).output, Storage())
    assert "rests on two values a side" in " ".join(text.cautions(few))
    assert "near-duplicates were not" in said
    by_key = summary | {"design": {**summary["design"], "group": None}}
    assert "No group field" in " ".join(text.cautions(by_key))


def test_two_models_are_said_to_be_too_few(tmp_path: Path) -> None:
    summary = summarize(fake_run(tmp_path, models=2).output, Storage())
    assert "no standard error" in " ".join(text.cautions(summary))


def test_pool_design_and_unfinished_runs_are_explained(tmp_path: Path) -> None:
    run = fake_run(tmp_path, kind="candidate", undefined=5)
    min(Path(run.output, "commits").iterdir()).unlink()
    said = " ".join(text.cautions(summarize(run.output, Storage())))
    assert "outside the pool" in said
    assert "S_I (its mirror image)" in said
    assert "not finished: 1 shard of 3" in said


def test_nothing_scored(tmp_path: Path) -> None:
    summary = summarize(str(tmp_path), Storage())
    assert text.headline(summary) == "No sample has been scored yet."
    assert text.cautions(summary) == []


def test_a_share_is_told_of_what_it_is_a_share_of(tmp_path: Path) -> None:
    summary = summarize(fake_run(tmp_path, undefined=150).output, Storage())
    noise = summary["noise"]
    assert noise["count"] < summary["coverage"]["scored"]
    out = round(noise["above"] * noise["count"])
    assert f"{out} of the {noise['count']} with an interval" in text.headline(summary)
