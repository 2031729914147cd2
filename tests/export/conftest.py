"""Shards that were rewritten without some of their samples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multimem_ray.results.select import Wanted, select_samples
from multimem_ray.results.table import ScoreTable
from multimem_ray.shards.reshard import reshard
from multimem_ray.storage import Storage

STORAGE = Storage()


@pytest.fixture
def rewritten(finished: str, tmp_path: Path) -> tuple[str, str]:
    """A run beside its shards, and the shards without its five most memorized samples."""
    source = tmp_path / "data"
    shutil.copytree(Path(finished).parent / "shards", source / "shards")
    shutil.copytree(finished, source / "out")
    run = str(source / "out")
    made = select_samples(ScoreTable(run, STORAGE), Wanted(top=5), "five")
    out = str(tmp_path / "cleaned")
    listed = STORAGE.join(made.folder, "remove")
    reshard(str(source / "shards/*.tar"), out, listed, storage=STORAGE)
    return run, out


def change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
