"""Local paths are made absolute: workers run in folders of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.setup import inspect, resolve
from multimem_ray.setup.paths import absolute
from multimem_ray.storage import Storage
from tests.small import small_config, write_shards


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    run, shards = inspect(small_config(Path("shards"), Path("out")))
    assert run.output == str(tmp_path / "out")
    assert shards.scored[0].url.startswith(str(tmp_path))


def test_the_package_folder_of_a_job_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    package.mkdir(parents=True)
    monkeypatch.chdir(package)
    with pytest.raises(ConfigError, match=r"output: runs/first lies in the package folder"):
        absolute(resolve({"output": "runs/first", "data": {"shards": "x"}}), Storage())
