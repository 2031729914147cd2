"""What a run found, in a terminal of any width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from multimem_ray.results.table import ScoreTable
from multimem_ray.results.terminal import null_words, top_table
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


@pytest.mark.parametrize("width", [50, 60, 80, 100, 200])
def test_keys_stay_whole_in_any_terminal(tmp_path: Path, width: int) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    rows = top(table, n=5)
    out = io.StringIO()
    console = Console(file=out, width=width)
    console.print(top_table(rows, "multimem_shrunk", table.modalities, width))
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert all(len(text) <= width for text in lines)
    for text, row in zip(lines[1:], rows, strict=True):
        assert row["key"] in text
        assert f"{row['multimem_shrunk']:.3f}" in text
        assert row["shard"].rsplit("/", 1)[-1] in text


def test_where_most_is_memorized_zero_is_the_wrong_question() -> None:
    noise = {"count": 100, "lists": [{"q": 0.05, "count": 30}]}
    (few,) = null_words(noise)
    assert few.startswith("30 samples can be listed as memorized at all")
    assert "wrong question" not in few
    (most,) = null_words({"count": 100, "lists": [{"q": 0.05, "count": 90}]})
    assert "--more-than 80%" in most
    assert null_words({"count": 0, "lists": []}) == []
