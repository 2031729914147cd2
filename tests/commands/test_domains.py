"""``multimem domains``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
from typer.testing import CliRunner

from multimem_ray.cli import app
from multimem_ray.errors import ConfigError
from tests.results.fake_run import fake_run


def test_a_table_fits_eighty_columns(tmp_path: Path) -> None:
    run = fake_run(tmp_path, labels=["a\x1b[31m name that is long, and longer than a column", "b"])
    out = str(tmp_path / "own.parquet")
    arguments = ["domains", run.output, "--by", "label", "--out", out]
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "TTY_COMPATIBLE": "1"})
    assert told.exit_code == 0, told.output
    table = re.sub(r"\x1b\[[01]m", "", told.output.split("all 600 scored")[0]).splitlines()
    assert 70 < max(map(len, table)) <= 80
    assert "\x1b[31m" not in told.output
    assert "q ≤ 0.05" in told.output
    assert pq.read_table(out).num_rows == 2
    assert not Path(run.output, "domains").exists()


def test_json_has_every_value(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    arguments = ["domains", run.output, "--by", "label", "--percent", "10", "--json"]
    told = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert len(told["domains"]) == told["values"] == 10
    assert told["whole"]["scored"] == 600
    assert told["listed"] == "the highest 10 %"
    assert Path(told["table"]).exists()
    fewer = json.loads(CliRunner().invoke(app, [*arguments, "-n", "3"]).stdout)
    first = [row["value"] for row in told["domains"][:3]]
    assert [row["value"] for row in fewer["domains"]] == first


def test_two_lists_are_refused(tmp_path: Path) -> None:
    arguments = ["domains", str(tmp_path), "--by", "label", "--fdr", "0.1", "--percent", "1"]
    told = CliRunner().invoke(app, arguments)
    assert isinstance(told.exception, ConfigError)
