"""The first configuration for some shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from multimem_ray.cli import app
from multimem_ray.errors import ConfigError
from multimem_ray.setup import inspect, load
from multimem_ray.shards.writer import ShardWriter
from tests.small import members, write_shards


def test_what_was_found_is_written_and_can_be_audited(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", samples=12, shards=2)
    place = tmp_path / "new" / "run.yaml"
    pattern = str(shards / "*.tar")
    done = CliRunner().invoke(app, ["init", pattern, "--to", str(place), "--output", "runs/x"])
    assert done.exit_code == 0, done.output
    text = place.read_text()
    assert "# An audit of 2 shards" in text
    assert 'image: "png"' in text
    assert 'label: "json.label"' in text
    run, found = inspect(load(place))
    assert len(found.scored) == 2
    assert dict(run.fields) == {"audio": "flac", "image": "png", "text": "txt"}
    assert run.config.output.endswith("runs/x")


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", samples=4, shards=1)
    place = tmp_path / "run.yaml"
    place.write_text("mine")
    command = ["init", str(shards / "*.tar"), "--to", str(place)]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, ConfigError)
    assert place.read_text() == "mine"
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
    assert place.read_text().startswith("# An audit of 1 shards")


@pytest.mark.parametrize("name", ["a: b", "#x", "q\u2028r"])
def test_names_of_strangers_stay_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with ShardWriter(str(folder), max_samples=8) as writer:
        for number in range(8):
            writer.write(f"s{number}", {**members(number), "b\u202ead": b"x"})
    place = tmp_path / "run.yaml"
    done = CliRunner().invoke(app, ["init", str(folder / "*.tar"), "--to", str(place)])
    assert done.exit_code == 0, done.output
    assert "\u202e" not in place.read_text()
    assert len(inspect(load(place))[1].scored) == 1
