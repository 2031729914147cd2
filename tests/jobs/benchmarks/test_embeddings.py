"""The benchmark of stored embeddings measures both sides on the same files."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.benchmarks import embeddings
from jobs.benchmarks.embeddings import Options, make_files
from jobs.benchmarks.thresholds import load_thresholds


def test_both_sides_take_turns_on_the_same_files(tmp_path: Path) -> None:
    figures = embeddings.measure(Options(samples=400, dim=16, models=2, repeats=2), tmp_path)
    assert min(figures.rows["ours"]["MB/s of CPU time"]) > 0
    assert len(figures.rows["ours"]["rate by bare"]) == 2
    assert load_thresholds()["embeddings"].keys() <= figures.rows.keys()
    scored = (tmp_path / "out" / "scores").glob("*/*.parquet")
    held_out = pq.read_table(tmp_path / "out" / "held_out" / "keys.parquet").num_rows
    assert sum(pq.read_metadata(file).num_rows for file in scored) + held_out == 400


@pytest.mark.parametrize("aligned", [True, False])
def test_files_have_the_same_samples_in_one_order_or_two(tmp_path: Path, aligned: bool) -> None:
    size = Options(samples=50, dim=4, models=2, modalities=2)
    first, second = (
        pq.read_table(file)["key"].to_pylist()
        for file in make_files(tmp_path, size, aligned=aligned)
    )
    assert second == (first if aligned else first[::-1])
    assert size.bytes == 4 * 50 * 4 * 2 * 2
