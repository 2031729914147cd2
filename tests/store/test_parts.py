"""Parts: what is kept of a shard comes back, and accounts for every position."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from multimem_ray.sample import Failure
from multimem_ray.storage import Storage
from multimem_ray.store.parts import Part, TableParts, joined

EMPTY = pa.table({"key": pa.array([], pa.string())})


def part(first: int, end: int) -> Part[pa.Table]:
    return Part(first, end, EMPTY, end - first, [])


def test_a_part_comes_back(tmp_path: Path) -> None:
    folder = TableParts(Storage(), str(tmp_path / "parts"))
    failure = Failure("a.tar", "k", 3, "decode", "empty", "it is")
    kept = Part(2, 5, pa.table({"key": ["a"]}), 1, [failure])
    assert folder.write(kept) == "000000002-000000005.arrow"
    assert folder.read() == [kept]
    folder.remove()
    assert folder.names() == []


def test_parts_that_overlap_or_leave_gaps_are_told(tmp_path: Path) -> None:
    folder = TableParts(Storage(), str(tmp_path / "parts"))
    for first, end in ((0, 4), (0, 8), (4, 8), (6, 10), (8, 12)):
        folder.write(part(first, end))
    (tmp_path / "parts" / "attempt.json").write_text("{}")
    assert [(p.first, p.end) for p in folder.read()] == [(0, 8), (8, 12)]
    with pytest.raises(RuntimeError, match="gap"):
        joined([part(0, 4), part(6, 10)], pa.concat_tables)
    with pytest.raises(RuntimeError, match="came to"):
        Part(0, 4, EMPTY, 3, [])
