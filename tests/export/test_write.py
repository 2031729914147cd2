"""Exports, opened by those who are to read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import multimem_ray as mm
from multimem_ray.errors import ConfigError
from multimem_ray.results.scores import open_scores
from multimem_ray.results.table import ScoreTable
from tests.results.fake_run import fake_run
from tests.s3 import S3Server
from tests.small import QUIET


@pytest.fixture
def output(finished: str, tmp_path: Path) -> str:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    return str(copy)


def keys(output: str) -> list[str]:
    return open_scores(output).arrow(["key"])["key"].to_pylist()


def test_a_form_that_is_none_and_a_run_without_scores_are_refused(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    with pytest.raises(ConfigError, match="'xml' is no form; write one of csv, json"):
        mm.export(run.output, "xml")  # type: ignore[arg-type]
    shutil.rmtree(Path(run.output, "commits"))
    with pytest.raises(ConfigError, match="nothing is scored yet"):
        mm.export(run.output, "card")


def test_hugging_face_datasets_open_the_folder(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    made = mm.export(output, "huggingface", tmp_path / "hf", fields=["url"], progress=QUIET)
    rows = datasets.load_dataset(made.url, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["key"][:] == keys(output)
    assert rows[0]["json.url"].startswith("https://host")
    assert len(rows[0]["cmc"]) == 4
    text = Path(made.url, "README.md").read_text()
    assert text.startswith("---\npretty_name: memorization-scores\n")
    assert "## Memorization audit" in text


def test_exports_go_to_the_run_by_default_and_tell_what_is_missed(output: str) -> None:
    mm.export(output, "csv", fields=["json.source"], progress=QUIET)
    for path in Path(output, "catalogue").iterdir():
        pq.write_table(pq.read_table(path).slice(0, 15), path)
    made = mm.export(output, "csv", fields=["source"], progress=QUIET)
    assert made.url == f"{output}/exports/scores.csv"
    missed = pd.read_csv(made.url)["json.source"].isna().sum()
    assert made.notes == [f"{missed} samples not met in the catalogue: their fields are empty"]


def test_a_field_that_no_sample_has_is_told(output: str) -> None:
    made = mm.export(output, "csv", fields=["url", "sorce"], progress=QUIET)
    assert made.notes == ["no sample has json.sorce"]


def test_an_object_store_is_written_to(tmp_path: Path, s3_server: S3Server) -> None:
    run, storage = fake_run(tmp_path), s3_server.storage
    made = mm.export(run.output, "croissant", f"{s3_server.bucket()}/exports", storage=storage)
    data = storage.read_bytes(storage.join(made.url, "scores.parquet"))
    assert pq.read_table(pa.BufferReader(data)).num_rows == 600
    assert ScoreTable(run.output, storage).version["rows"] == 600
