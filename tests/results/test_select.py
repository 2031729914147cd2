from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.results import select
from multimem_ray.results.select import (
    Selection,
    above_threshold,
    find_threshold,
    ranking,
    top_n,
    write_datacomp,
    write_selection,
)
from multimem_ray.results.statistics import QuantileSketch
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


@pytest.mark.parametrize(("column", "n"), [("multimem", 1), ("multimem", 300), ("cmc_out", 599)])
@pytest.mark.parametrize("k", [8, 4096])
def test_the_cut_is_exact_even_with_a_coarse_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, n: int, k: int
) -> None:
    monkeypatch.setattr(select, "QuantileSketch", lambda: QuantileSketch(k))
    table = ScoreTable(fake_run(tmp_path).output, Storage(), batch_rows=77)
    last = top(table, column, n)[-1]
    edge = find_threshold(ranking(table, column), n)
    assert edge == {"score": last[column], "shard": last["shard"], "key": last["key"]}


def test_removed_and_kept_are_everything_once(tmp_path: Path) -> None:
    run = fake_run(tmp_path, undefined=4)
    table = ScoreTable(run.output, Storage())
    made = _top(table, "worst", n=50)
    removed, kept = _read(made.parts["remove"]), _read(made.parts["keep"])
    assert len(removed) == 50
    assert {r["key"] for r in removed} == {r["key"] for r in top(table, n=50)}
    assert {r["key"] for r in removed} | {r["key"] for r in kept} == {r["key"] for r in run.rows}
    assert len(removed) + len(kept) == len(run.rows)
    worst = max(removed, key=lambda r: r["score"])
    parts = {m: worst[f"attribution_{m}"] for m in ("audio", "image", "text")}
    assert worst["main_modality"] == max(parts, key=parts.__getitem__)
    assert worst["percentile"] > 99.9
    assert worst["se"] is not None
    assert worst["cmc_out"] is not None
    assert sum(r["score"] is None for r in kept) == 12
    written = json.loads((Path(made.folder) / "selection.json").read_text())
    assert written == {
        "by": "multimem_shrunk",
        "removed": 50,
        "kept": len(kept),
        "without_score": 12,
    }


def test_ties_are_cut_by_shard_and_key(tmp_path: Path) -> None:
    run = fake_run(tmp_path, kind="leave_subset_out")
    table = ScoreTable(run.output, Storage())
    removed = _read(_top(table, "ties", by="n_out", n=250).parts["remove"])
    expected = sorted((r["shard"], r["key"]) for r in run.rows)[:250]
    assert [(r["shard"], r["key"]) for r in removed] == expected


def test_parts_and_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    monkeypatch.setattr(select, "PART_ROWS", 150)
    first = _top(table, "a", fraction=0.1).parts["keep"]
    assert [Path(u).name for u in first] == [f"{n:05d}.parquet" for n in range(len(first))]
    assert 540 / 300 <= len(first) <= 540 / 100
    assert len(_read(first)) == 540
    second = _top(table, "a", fraction=0.9).parts["keep"]
    assert sorted(p.name for p in Path(second[0]).parent.iterdir()) == ["00000.parquet"]


@pytest.mark.parametrize("margin", [0.0, 2.0])
def test_above_a_score_by_a_margin_of_standard_errors(tmp_path: Path, margin: float) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    made = write_selection("sure", above_threshold(ranking(table), 0.2, margin))
    rows = table.query("SELECT * FROM scores", [*table.columns])
    expected = {
        r["key"] for r in rows if r["multimem_shrunk"] - margin * r["multimem_shrunk_sd"] > 0.2
    }
    assert len(rows) == len(run.rows)
    assert expected
    assert {r["key"] for r in _read(made.parts["remove"])} == expected


def test_without_a_standard_error_nothing_is_sure(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path, models=2).output, Storage())
    assert write_selection("a", above_threshold(ranking(table), 0.2)).counts["removed"] > 0
    assert write_selection("b", above_threshold(ranking(table), 0.2, 1.0)).counts["removed"] == 0


def test_a_margin_needs_a_standard_error(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match="by multimem"):
        above_threshold(ranking(table, "cmc_out"), 0.2, 1.0)


def test_random_is_as_long_repeatable_and_of_no_score(tmp_path: Path) -> None:
    run = fake_run(tmp_path, undefined=4)
    table = ScoreTable(run.output, Storage())

    def drawn(seed: int) -> set[object]:
        rule = top_n(ranking(table, "random", seed=seed), n=200)
        return {r["key"] for r in _read(write_selection("random", rule).parts["remove"])}

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 200
    scores = {r["key"]: r["multimem"] for r in run.rows}
    assert all(scores[key] is not None for key in drawn(0))
    every = [value for value in scores.values() if value is not None]
    assert np.mean([scores[key] for key in drawn(0)]) == pytest.approx(np.mean(every), abs=0.03)


def test_clipmem_ranks_by_the_sum_over_pairs(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    sums = {r["key"]: sum(v for c, v in r.items() if c.startswith("clipmem_")) for r in run.rows}
    removed = {r["key"] for r in _read(_top(table, "c", by="clipmem", n=20).parts["remove"])}
    assert removed == set(sorted(sums, key=lambda key: -sums[key])[:20])


@pytest.mark.parametrize("size", [{}, {"n": 1, "fraction": 0.1}, {"n": 601}, {"fraction": 1.5}])
def test_impossible_sizes(tmp_path: Path, size: dict[str, float]) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match=r"selection|list of"):
        top_n(ranking(table), **size)  # type: ignore[arg-type]


def test_a_name_stays_in_its_folder(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match="letters"):
        _top(table, "../x", n=1)


def test_datacomp_list(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    uids = [rng.bytes(16).hex() for _ in range(40)]
    run = fake_run(tmp_path, shards=1, keys=[[f"a/{uid}" for uid in uids]])
    table = ScoreTable(run.output, Storage())
    parts = _top(table, "keep", n=10).parts["keep"]
    url = str(tmp_path / "keep.npy")
    assert write_datacomp(Storage(), parts, url) == 30
    found = np.load(url)
    assert found.dtype == np.dtype("u8,u8")
    assert (np.sort(found) == found).all()
    back = {f"{int(a):016x}{int(b):016x}" for a, b in found}
    assert back == {str(r["key"]).removeprefix("a/") for r in _read(parts)}


def test_datacomp_list_needs_uids(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    parts = _top(table, "x", n=10).parts["remove"]
    with pytest.raises(ConfigError, match="no uid of 32"):
        write_datacomp(Storage(), parts, str(tmp_path / "keep.npy"))


def _top(table: ScoreTable, name: str, by: str | None = None, **size: float) -> Selection:
    rule = top_n(ranking(table, by), **size)  # type: ignore[arg-type]
    return write_selection(name, rule)


def _read(parts: Sequence[str]) -> list[dict[str, object]]:
    return pa.concat_tables([pq.read_table(part) for part in parts]).to_pylist()


def test_a_run_without_scores_has_no_list_and_says_so(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=1, rows=20, undefined=20)
    ranking = select.ranking(ScoreTable(run.output, Storage()), "multimem")
    with pytest.raises(ConfigError, match=r"^no sample has a score 'multimem' that"):
        select.top_n(ranking, n=5)
