"""What shards say of every sample, read once and kept."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.results.catalogue import Catalogue
from multimem_ray.results.scores import open_scores
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run
from tests.small import QUIET


@pytest.fixture
def output(finished: str, tmp_path: Path) -> str:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("catalogue"))
    return str(copy)


def test_rows_agree_with_the_scores(output: str) -> None:
    kept = Catalogue(output, Storage()).ensure(["json.source"], QUIET)
    assert kept.whole
    assert kept.fields == ["json.source", "json.url"]
    columns = ["key", "index", "content", "held_out", "json.source"]
    rows = {r["key"]: r for batch in kept.batches(columns) for r in batch.to_pylist()}
    assert len(rows) == 40
    scored = open_scores(output).arrow(["key", "index", "group"]).to_pylist()
    for row in scored:
        same = rows[row["key"]]
        assert (same["index"], same["content"]) == (row["index"], row["group"])
        assert same["held_out"] is False
    others = rows.keys() - {row["key"] for row in scored} - {"s0007"}
    assert all(rows[key]["held_out"] for key in others)
    assert rows["s0039"]["json.source"] == "tape-3"


def test_further_fields_are_read_again_and_earlier_ones_kept(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalogue(output, Storage()).ensure(["json.source"], QUIET)
    kept = Catalogue(output, Storage()).ensure(["json.label"], QUIET)
    assert kept.fields == ["json.label", "json.source", "json.url"]
    assert len(list(Path(output, "catalogue").iterdir())) == 2
    monkeypatch.setattr("multimem_ray.results.catalogue.read_shard", None)
    assert Catalogue(output, Storage()).ensure(["json.url"], QUIET).whole
    assert kept.where("json.source", ["tape-2"], ["key"]).num_rows == 10


def test_a_field_that_no_sample_has_is_told_after_the_first_shard(output: str) -> None:
    told = io.StringIO()
    progress = Progress(Console(file=told, width=300))
    Catalogue(output, Storage()).ensure(["json.sorce", "json.label"], progress)
    assert told.getvalue().count("has json.sorce; if that is a mistake, stop here") == 1


def test_what_cannot_be_catalogued_is_said(output: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'source' is no JSON field; write json\.source"):
        Catalogue(output, Storage()).ensure(["source"], QUIET)
    stored = fake_run(tmp_path).output  # as a run on stored embeddings has it: no shards.parquet
    with pytest.raises(ConfigError, match="stored embeddings have none"):
        Catalogue(stored, Storage()).ensure(progress=QUIET)
