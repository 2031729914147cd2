"""The benchmark of stored embeddings measures both sides on the same files, and memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import benchmark_embeddings
from jobs.benchmark_embeddings import Size


def test_both_sides_and_memory_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "found.json"
    few = ["--samples", "400", "--dim", "16", "--models", "2", "--repeats", "1"]
    benchmark_embeddings.main([*few, "--memory", "--json", str(result)])
    found = json.loads(result.read_text())
    assert found["speed"]["bytes"] == 400 * 16 * 2 * 3 * 4
    assert found["speed"]["ours"]["cpu_mb_per_s"] > 0
    assert "ours by bare" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    found = {}
    for samples in (50_000, 400_000):
        for aligned in (True, False):
            folder = tmp_path / f"{samples}-{aligned}"
            folder.mkdir()
            size = Size(samples, 16, 2, 2)
            peak = benchmark_embeddings.peak_memory(folder, size, aligned=aligned)["peak_uss"]
            found[samples, aligned] = peak
    assert found[400_000, True] < found[50_000, True] + 60e6
    assert found[400_000, False] < found[50_000, False] + 300e6
