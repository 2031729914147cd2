from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


def test_streams_every_row_once_in_bounded_batches(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage(), batch_rows=50)
    batches = list(table.batches(["key", "multimem"]))
    assert max(b.num_rows for b in batches) <= 50
    assert [k for b in batches for k in b["key"].to_pylist()] == [r["key"] for r in run.rows]
    assert batches[0].schema.names == ["key", "multimem"]


def test_streams_large_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run(tmp_path)
    monkeypatch.setattr("multimem_ray.results.table.AHEAD_BYTES", 0)
    table = ScoreTable(run.output, Storage())
    assert sum(b.num_rows for b in table.batches(["key"])) == len(run.rows)


def test_a_file_without_its_marker_is_not_part_of_the_result(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    marker = min(Path(run.output, "commits").iterdir())
    lost = json.loads(marker.read_text())["shard"]
    marker.unlink()
    table = ScoreTable(run.output, Storage())
    seen = {s for b in table.batches(["shard"]) for s in b["shard"].to_pylist()}
    assert lost not in seen
    assert len(seen) == 2
    assert sum(b.num_rows for b in table.error_batches()) == 6


def test_a_marker_of_an_earlier_configuration_does_not_count(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    marker = min(Path(run.output, "commits").iterdir())
    marker.rename(marker.with_name(marker.name.replace("feedfacefeedface", "0ldf00d00ldf00d0")))
    assert len(ScoreTable(run.output, Storage()).commits) == 2


def test_names_of_modalities_and_pairs(tmp_path: Path) -> None:
    run = fake_run(tmp_path, modalities=("depth_map", "image", "text"))
    table = ScoreTable(run.output, Storage())
    assert table.modalities == ("depth_map", "image", "text")
    assert table.pairs == [("depth_map", "image"), ("depth_map", "text"), ("image", "text")]


def test_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match="did you mean 'multimem'"):
        next(table.batches(["multimen"]))


def test_nothing_scored_yet(tmp_path: Path) -> None:
    table = ScoreTable(str(tmp_path / "none"), Storage())
    assert table.columns == []
    assert list(table.batches(["multimem"])) == []
    assert table.document("run.json") == {}


def test_damage_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    file = next(Path(run.output, "scores").rglob("*.parquet"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageError, match=rf"{file.stem}.*marker"):
        list(ScoreTable(run.output, Storage()).batches(["cmc"]))
    Path(run.output, "run.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        _ = ScoreTable(run.output, Storage()).commits
