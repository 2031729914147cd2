"""A run is of the shards that it began with: one that is replaced under its name is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from multimem_ray.errors import ResumeError
from multimem_ray.setup import open_run
from tests.small import small_config, write_shards


def test_a_replaced_shard_is_refused_once_something_was_made_of_it(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", samples=8)
    config = small_config(shards, tmp_path / "out")
    open_run(config)
    first = min(shards.glob("*.tar"))
    os.utime(first, ns=(1, 1))
    open_run(config)  # nothing was made of it yet
    (tmp_path / "out" / "models" / "000").mkdir(parents=True)
    open_run(config)
    os.utime(first, ns=(2, 2))
    with pytest.raises(ResumeError, match=r"other content of .*000000.tar \(changed since"):
        open_run(config)
    first.write_bytes(first.read_bytes() + bytes(512))
    with pytest.raises(ResumeError, match=r"bytes then, .*use another output"):
        open_run(config)
