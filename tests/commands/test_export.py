"""``multimem export``."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

from multimem_ray.cli import app
from multimem_ray.errors import ConfigError
from tests.results.fake_run import fake_run


def test_a_table_of_some_columns(tmp_path: Path) -> None:
    run, out = fake_run(tmp_path), str(tmp_path / "top.csv")
    arguments = ["export", run.output, "--to", "csv", "--out", out, "--top", "5"]
    told = CliRunner().invoke(app, [*arguments, "--column", "key", "--column", "multimem"])
    assert told.exit_code == 0, told.output
    assert f"5 samples: {out}" in told.output
    rows = pd.read_csv(out)
    assert list(rows) == ["key", "multimem"]
    assert len(rows) == 5


def test_json_tells_where_it_is(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    told = json.loads(
        CliRunner().invoke(app, ["export", run.output, "--to", "card", "--json"]).stdout
    )
    assert told == {
        "to": "card",
        "url": f"{run.output}/exports/data-card.md",
        "rows": None,
        "notes": [],
    }
    assert Path(told["url"]).read_text().startswith("## Memorization audit")


def test_another_form_is_refused(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["export", fake_run(tmp_path).output, "--to", "xml"])
    assert isinstance(told.exception, ConfigError)
