from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


@pytest.mark.parametrize(("column", "sign"), [("multimem", -1), ("cmc_out", 1), ("cmc_in", 1)])
def test_exact_against_sorting_everything(tmp_path: Path, column: str, sign: int) -> None:
    run = fake_run(tmp_path, undefined=5)
    found = top(ScoreTable(run.output, Storage(), batch_rows=37), column, 40)
    rows = [r for r in run.rows if r[column] is not None]
    rows.sort(key=lambda r: (sign * r[column], r["shard"], r["key"]))
    assert [r["key"] for r in found] == [r["key"] for r in rows[:40]]
    best = np.array(rows[0]["cmc"], dtype=np.float32).tolist()
    assert found[0]["cmc"] == pytest.approx(best)


def test_ties_go_by_shard_and_key_whatever_the_batches(tmp_path: Path) -> None:
    run = fake_run(tmp_path, kind="leave_subset_out", models=4)  # n_out is 1 everywhere
    for rows in (7, 64, 1000):
        found = top(ScoreTable(run.output, Storage(), batch_rows=rows), "n_out", 250)
        expected = sorted((r["shard"], r["key"]) for r in run.rows)[:250]
        assert [(r["shard"], r["key"]) for r in found] == expected


def test_equal_keys_in_two_shards_are_two_samples(tmp_path: Path) -> None:
    keys = [["a", "b", "c"], ["a", "b", "c"]]
    run = fake_run(tmp_path, shards=2, keys=keys)
    found = top(ScoreTable(run.output, Storage()), n=6)
    assert len({(r["shard"], r["key"]) for r in found}) == 6
    assert [r["multimem"] for r in found] == sorted(run.column("multimem"), reverse=True)


def test_more_than_there_are_and_direction(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=1, rows=10)
    table = ScoreTable(run.output, Storage())
    found = top(table, "multimem", 99, largest=False, columns=["index"])
    assert [set(r) for r in found] == [{"multimem", "shard", "key", "index"}] * 10
    assert found[0]["multimem"] == np.nanmin(run.column("multimem"))


def test_refusals(tmp_path: Path) -> None:
    table = ScoreTable(fake_run(tmp_path).output, Storage())
    with pytest.raises(ConfigError, match="'label' holds string"):
        top(table, "label")
    with pytest.raises(ConfigError, match="at least 1"):
        top(table, n=0)
    assert top(ScoreTable(str(tmp_path / "none"), Storage())) == []
