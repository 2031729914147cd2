"""The sample configurations are valid, and say nothing that is not a configuration key."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.setup import load

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "jobs/configs").glob("*.yaml"))


def test_there_are_configs() -> None:
    assert {"laptop.yaml", "s3.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads(path: Path) -> None:
    config = load(path)
    assert config.output
    assert config.data.shards


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_commented_keys_are_valid_too(path: Path, tmp_path: Path) -> None:
    """A user takes the '#' away from ``# key: value``, and the file must still load."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        before, mark, after = line.partition("# ")
        optional = mark and not before.strip() and ": " in after and line.startswith("  ")
        prose = after.split(":")[0].strip().count(" ") > 0
        lines.append(before + after if optional and not prose else line)
    uncommented = tmp_path / path.name
    uncommented.write_text("\n".join(lines), encoding="utf-8")
    load(uncommented)


def test_s3_config_uses_the_cluster() -> None:
    path = next(path for path in CONFIGS if path.stem == "s3")
    config = load(path)
    assert config.output.startswith("s3://")
    assert config.resources.train.gpus == 1
    assert config.resources.score.actors == (2, 16)
