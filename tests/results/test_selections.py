from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.results import selections
from multimem_ray.results.reader import ScoreTable
from multimem_ray.results.selections import find_cut, write_datacomp, write_selection
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


@pytest.mark.parametrize(("column", "n"), [("multimem", 1), ("multimem", 300), ("cmc_out", 599)])
@pytest.mark.parametrize("k", [8, 4096])
def test_the_cut_is_exact_even_with_a_coarse_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, n: int, k: int
) -> None:
    sketch = selections.QuantileSketch
    monkeypatch.setattr(selections, "QuantileSketch", lambda: sketch(k))
    table = ScoreTable(fake_run(tmp_path).output, Storage(), batch_rows=77)
    last = top(table, column, n)[-1]
    cut = find_cut(table, column, n)
    assert (cut.value, cut.shard, cut.key) == (last[column], last["shard"], last["key"])


def test_removed_and_kept_are_everything_once(tmp_path: Path) -> None:
    run = fake_run(tmp_path, undefined=4)
    table = ScoreTable(run.output, Storage())
    removed = _read(write_selection(table, "remove", n=50))
    kept = _read(write_selection(table, "keep", n=50, kind="keep"))
    assert len(removed) == 50
    assert {r["key"] for r in removed} == {r["key"] for r in top(table, n=50)}
    assert {r["key"] for r in removed} | {r["key"] for r in kept} == {r["key"] for r in run.rows}
    assert len(removed) + len(kept) == len(run.rows)
    worst = max(removed, key=lambda r: r["score"])
    parts = {m: worst[f"attribution_{m}"] for m in ("audio", "image", "text")}
    assert worst["main_modality"] == max(parts, key=parts.__getitem__)
    assert worst["percentile"] > 99.9
    assert worst["se"] is not None
    assert sum(r["score"] is None for r in kept) == 12


def test_ties_are_cut_by_shard_and_key(tmp_path: Path) -> None:
    run = fake_run(tmp_path, kind="leave_subset_out")
    table = ScoreTable(run.output, Storage())
    removed = _read(write_selection(table, "ties", by="n_out", n=250))
    expected = sorted((r["shard"], r["key"]) for r in run.rows)[:250]
    assert [(r["shard"], r["key"]) for r in removed] == expected


def test_parts_and_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    monkeypatch.setattr(selections, "PART_ROWS", 150)
    first = write_selection(table, "keep", fraction=0.1, kind="keep")
    assert [Path(u).name for u in first] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert len(_read(first)) == 540
    second = write_selection(table, "keep", fraction=0.9, kind="keep")
    assert sorted(p.name for p in Path(second[0]).parent.iterdir()) == ["00000.parquet"]


@pytest.mark.parametrize("size", [{}, {"n": 1, "fraction": 0.1}, {"n": 601}, {"fraction": 1.5}])
def test_impossible_sizes(tmp_path: Path, size: dict[str, float]) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match=r"selection|list of"):
        write_selection(table, "x", **size)  # type: ignore[arg-type]


def test_datacomp_list(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    uids = [rng.bytes(16).hex() for _ in range(40)]
    run = fake_run(tmp_path, shards=1, keys=[[f"a/{uid}" for uid in uids]])
    table = ScoreTable(run.output, Storage())
    parts = write_selection(table, "keep", n=10, kind="keep")
    url = str(tmp_path / "keep.npy")
    assert write_datacomp(table, parts, url) == 30
    found = np.load(url)
    assert found.dtype == np.dtype("u8,u8")
    assert (np.sort(found) == found).all()
    back = {f"{int(a):016x}{int(b):016x}" for a, b in found}
    assert back == {r["key"].removeprefix("a/") for r in _read(parts)}


def test_datacomp_list_needs_uids(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    parts = write_selection(table, "keep", n=10)
    with pytest.raises(ConfigError, match="no uid of 32"):
        write_datacomp(table, parts, str(tmp_path / "keep.npy"))


def _read(parts: list[str]) -> list[dict[str, object]]:
    return pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist()
