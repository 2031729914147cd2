"""Local paths are made absolute: workers run in folders of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.setup import inspect
from tests.small import small_config, write_shards


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    run, shards = inspect(small_config(Path("shards"), Path("out")))
    assert run.output == str(tmp_path / "out")
    assert shards.scored[0].url.startswith(str(tmp_path))
