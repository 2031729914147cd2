"""Row groups that cannot matter are not read, and the answers stay exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from multimem_ray.results.cut import find_threshold
from multimem_ray.results.ranking import ranking
from multimem_ray.results.reader import ScoreTable
from multimem_ray.results.selections import write_selection
from multimem_ray.results.spans import Span, best_of_file, spans_of, within
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from multimem_ray.store import files
from multimem_ray.store.files import score_file
from tests.results.fake_run import FakeRun, fake_run


class CountingStorage(Storage):
    """Counts the bytes that are read of score files."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def open(self, url: str) -> BinaryIO:
        return _Counting(super().open(url), self)  # type: ignore[return-value]


class _Counting:
    def __init__(self, stream: BinaryIO, counter: CountingStorage) -> None:
        self._stream, self._counter = stream, counter

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._counter.read += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> _Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@pytest.fixture
def ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A run whose files are written as scoring writes them, with ties and undefined rows."""
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 32)
    run = fake_run(tmp_path, shards=4, rows=640, undefined=5)
    for path in Path(run.output, "scores").rglob("*.parquet"):
        table = pq.read_table(path, partitioning=None)
        place = table.schema.get_field_index("multimem")
        coarse = pc.round(table["multimem"], 2)
        path.write_bytes(score_file(table.set_column(place, "multimem", coarse), "f"))
    return run


def whole(run: FakeRun) -> list[dict[str, Any]]:
    paths = Path(run.output, "scores").rglob("*.parquet")
    return pa.concat_tables([pq.read_table(p, partitioning=None) for p in paths]).to_pylist()


def ranked(run: FakeRun, column: str, sign: int) -> list[dict[str, Any]]:
    rows = [row for row in whole(run) if row[column] is not None]
    return sorted(rows, key=lambda r: (sign * r[column], r["shard"], r["key"]))


@pytest.mark.parametrize("n", [1, 24, 200, 5000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_top_is_exact(ordered: FakeRun, n: int, sign: int) -> None:
    table = ScoreTable(ordered.output, Storage(), batch_rows=50)
    found = top(table, "multimem", n, largest=sign < 0)
    expected = ranked(ordered, "multimem", sign)[:n]
    assert [(r["shard"], r["key"]) for r in found] == [(r["shard"], r["key"]) for r in expected]


@pytest.mark.parametrize("n", [1, 100, 1500])
@pytest.mark.parametrize(("column", "sign"), [("multimem", -1), ("cmc_in", 1)])
def test_lists_are_exact(ordered: FakeRun, n: int, column: str, sign: int) -> None:
    table = ScoreTable(ordered.output, Storage())
    rows = ranked(ordered, column, sign)
    cut = find_threshold(table, ranking(table, column), n)
    assert (cut.shard, cut.key) == (rows[n - 1]["shard"], rows[n - 1]["key"])
    made = write_selection(table, "worst", cut)
    found = pa.concat_tables(pq.read_table(url) for url in made.parts["remove"])
    assert sorted(zip(found["shard"].to_pylist(), found["key"].to_pylist(), strict=True)) == sorted(
        (row["shard"], row["key"]) for row in rows[:n]
    )


def test_the_top_reads_little(ordered: FakeRun) -> None:
    storage = CountingStorage()
    top(ScoreTable(ordered.output, storage), "multimem", 10)
    least = storage.read
    storage.read = 0
    list(ScoreTable(ordered.output, storage).batches(["multimem", "shard", "key"]))
    wide = storage.read
    storage.read = 0
    list(ScoreTable(ordered.output, storage).batches(ScoreTable(ordered.output, storage).columns))
    footers = sum(_footer(p) for p in Path(ordered.output, "scores").rglob("*.parquet"))
    assert least - 3 * footers < (storage.read - footers) / 5
    assert wide < storage.read


def _footer(path: Path) -> int:
    return int(pq.read_metadata(path).serialized_size) + 8


def test_of_an_ordered_file_the_top_needs_the_first_row_group(ordered: FakeRun) -> None:
    for path in Path(ordered.output, "scores").rglob("*.parquet"):
        spans = spans_of(pq.read_metadata(path), "multimem")
        assert len(spans) == 20
        assert best_of_file(spans, 10, largest=True) in ([0], [0, 1]), "1 only for a tie"
        assert 0 < len(best_of_file(spans, 10, largest=False)) <= 4
        assert best_of_file(spans_of(pq.read_metadata(path), "cmc_in"), 10, largest=True)


def test_row_groups_without_statistics_are_read() -> None:
    spans = [Span(1.0, 2.0, 5), None, Span(3.0, 4.0, 5), Span(0.0, 0.0, 0)]
    assert best_of_file(spans, 5, largest=True) == [1, 2]
    assert best_of_file(spans, 6, largest=True) == [0, 1, 2]
    assert best_of_file(spans, 5, largest=False) == [0, 1]
    assert within(spans, 2.0, 2.5) == [0, 1]
    assert within(spans, -np.inf, np.inf) == [0, 1, 2]


def test_a_tie_at_the_edge_is_read() -> None:
    spans = [Span(2.0, 3.0, 5), Span(1.0, 2.0, 5)]
    assert best_of_file(spans, 5, largest=True) == [0, 1]
    assert within(spans, 2.0, np.inf) == [0, 1]
