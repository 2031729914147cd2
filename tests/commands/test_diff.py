"""``multimem diff``."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from multimem_ray.cli import app
from multimem_ray.errors import ConfigError
from tests.results.fake_run import fake_run


def test_it_says_what_moved_and_what_was_not_met(tmp_path: Path) -> None:
    first = fake_run(tmp_path / "a", planted=0.2, models=8)
    second = fake_run(tmp_path / "b", planted=0.0, models=8, seed=1, shards=2)
    told = CliRunner().invoke(app, ["diff", first.output, second.output, "-n", "2"])
    assert told.exit_code == 0, told.output
    for words in (
        "400 samples in common; mean B - A -0.",
        "moved beyond their error",
        "200 scored in A alone, such as set-00002.tar: 02_00000",
        "rank correlation",
    ):
        assert words in told.output
    assert "scored in B alone" not in told.output
    told = CliRunner().invoke(app, ["diff", first.output, second.output, "--json"])
    content = json.loads(told.stdout)
    assert len(content["movers"]) == 10
    assert Path(content["table"]).exists()
    told = CliRunner().invoke(app, ["diff", first.output, second.output, "--fdr", "2"])
    assert isinstance(told.exception, ConfigError)
