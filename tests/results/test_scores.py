"""The scores of a run in a notebook's words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import multimem_ray as mm
from tests.results.fake_run import fake_run


def test_every_form_has_the_committed_rows(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    min(Path(run.output, "commits").iterdir()).unlink()
    scores = mm.open_scores(run.output)
    keys = set(scores.arrow(["key"])["key"].to_pylist())
    assert 0 < len(keys) < 600
    assert set(scores.pandas(["key", "multimem"])["key"]) == keys
    assert set(scores.polars()["key"]) == keys
    assert set(scores.duckdb().project("key").fetchnumpy()["key"].tolist()) == keys
    best = scores.top(3)
    assert [row["multimem"] for row in best] == sorted(
        (row["multimem"] for row in best), reverse=True
    )
    assert scores.summary()["coverage"]["scored"] == len(keys)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(mm.ConfigError, match="no score column 'multimen'; did you mean"):
        mm.open_scores(fake_run(tmp_path).output).arrow(["multimen"])


def test_without_polars_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = mm.open_scores(fake_run(tmp_path).output)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(mm.ConfigError, match=r"pip install polars"):
        scores.polars()


def test_a_folder_without_scores_is_empty(tmp_path: Path) -> None:
    scores = mm.open_scores(tmp_path)
    assert scores.arrow().num_rows == 0
    assert scores.top() == []
