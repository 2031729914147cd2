from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.results.scores import Scores
from multimem_ray.results.select import Wanted, select_samples
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import FakeRun, fake_run


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


def foreign(run: FakeRun, other: FakeRun, fingerprint: str) -> Path:
    """Put a file of another run, of as many rows, under the first valid marker."""
    mine, theirs = (min(Path(r.output, "scores").rglob("*.parquet")) for r in (run, other))
    table = pq.read_table(theirs, partitioning=None)
    pq.write_table(table.replace_schema_metadata({"multimem_ray": fingerprint}), mine)
    return mine


READERS: dict[str, Callable[[ScoreTable], object]] = {
    "summary": summarize,
    "top": lambda table: top(table, None, 5),
    "select": lambda table: select_samples(table, Wanted("multimem", top=3)),
    "arrow": lambda table: Scores(table).arrow(),
    "duckdb": lambda table: Scores(table).duckdb().fetchall(),
    "batches": lambda table: list(table.batches(["key"])),
}


@pytest.mark.parametrize("reader", READERS)
def test_rows_of_another_run_are_never_served(reader: str, tmp_path: Path) -> None:
    run, other = (fake_run(tmp_path / name, rows=40, seed=len(name)) for name in ("a", "bc"))
    READERS[reader](ScoreTable(run.output, Storage()))
    file = foreign(run, other, "0123456789abcdef")
    said = rf"{file.name}: not of this run: written by run 0123456789abcdef; remove .*/{file.stem}"
    with pytest.raises(StorageError, match=said) as refusal:
        READERS[reader](ScoreTable(run.output, Storage()))
    assert "\n" not in str(refusal.value)


def test_rows_of_another_shard_or_of_another_number_are_never_served(tmp_path: Path) -> None:
    run = fake_run(tmp_path, rows=40)
    first, second, third = sorted(Path(run.output, "scores").rglob("*.parquet"))
    first.write_bytes(second.read_bytes())
    table = pq.read_table(third, partitioning=None)
    for query in ("SELECT count(*) FROM scores", "SELECT max(multimem) FROM scores"):
        with pytest.raises(StorageError, match=f"{first.name}: holds rows of another shard"):
            ScoreTable(run.output, Storage()).query(query, ["multimem"])
    first.unlink()
    min(Path(run.output, "commits").glob(f"{first.stem}*")).unlink()
    pq.write_table(table[:39], third)
    with pytest.raises(StorageError, match=rf"{third.name}: 39 rows where 40 were committed"):
        list(ScoreTable(run.output, Storage()).batches(["key"]))


def test_errors_of_another_run_are_never_served(tmp_path: Path) -> None:
    run = fake_run(tmp_path, rows=5)
    file = min(Path(run.output, "errors").rglob("*.parquet"))
    pq.write_table(pq.read_table(file, partitioning=None).replace_schema_metadata(None), file)
    with pytest.raises(StorageError, match=f"{file.name}: not of this run: written by something"):
        list(ScoreTable(run.output, Storage()).error_batches())
