"""``multimem certificate``."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from multimem_ray.cli import app
from multimem_ray.shards.reshard import reshard
from tests.small import write_shards


def test_it_is_written_and_checked(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", samples=6)
    listed, out = tmp_path / "list.txt", tmp_path / "out"
    listed.write_text("s0001\n")
    reshard(str(shards / "*.tar"), str(out), str(listed))
    told = CliRunner().invoke(app, ["certificate", str(out)])
    assert told.exit_code == 0, told.output
    assert "1 of 6 samples removed from 2 shards; 5 are byte for byte as before" in told.output
    told = CliRunner().invoke(app, ["certificate", str(out), "--check"])
    assert told.exit_code == 0
    assert "as certified" in told.output
    next(out.glob("*.tar")).write_bytes(b"")
    told = CliRunner().invoke(app, ["certificate", str(out), "--check", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout)["true"] is False
