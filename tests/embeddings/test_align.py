"""A unit's rows as all models have them, whatever the blocks of their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.embeddings import align, sets
from multimem_ray.embeddings import score as scoring
from multimem_ray.embeddings.worker import UnitScorer
from multimem_ray.errors import StorageError
from tests.embeddings.kept import (
    N,
    assert_literal,
    config_of,
    keys_of,
    row,
    rows_of,
    score,
    table,
    write,
    written,
)


def test_files_that_stand_alike_are_scored_side_by_side(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    run, shards = score(config_of(tmp_path / "out", written(tmp_path, found)))
    assert len(shards.scored) == 1
    assert_literal(run, found, keys_of(N))
    held = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert held["samples"] == int(run.held_out_rule.is_held_out(keys_of(N), "").sum())


def test_a_large_file_is_cut_and_blocks_need_not_fit(
    tmp_path: Path, found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "UNIT_ROWS", 48)
    monkeypatch.setattr(align, "_BLOCK_ROWS", (7, 7))
    monkeypatch.setattr(scoring, "TABLE_ROWS", 20)
    first = written(tmp_path, found)[0]
    # Other row groups in the second file.
    second = write(tmp_path / "other.parquet", table(keys_of(N), found[1]), row_group_size=33)
    run, shards = score(config_of(tmp_path / "out", [first, second]))
    assert len(shards.scored) == 4
    assert_literal(run, found, keys_of(N))
    indices = {row["key"]: row["index"] for row in rows_of(run.output).values()}
    assert all(index < 80 for index in indices.values())


def test_files_that_change_while_they_are_read_are_told(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    paths = written(tmp_path, found)
    run, shards = score(config_of(tmp_path / "out", paths))
    write(Path(paths[1]), table(keys_of(N)[::-1], found[1]))
    with pytest.raises(StorageError, match="its files have changed"):
        UnitScorer(run, restarted=False)(row(shards.scored[0].url, "shard"))
