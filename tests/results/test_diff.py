"""Two runs compared, against the rows of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

import multimem_ray as mm
from multimem_ray.results.diff import Diff
from tests.results.fake_run import FakeRun, fake_run


@pytest.fixture
def pair(tmp_path: Path) -> tuple[FakeRun, FakeRun]:
    """The same names under other models; in the second run nothing is planted."""
    first = fake_run(tmp_path / "a", planted=0.2, models=8)
    return first, fake_run(tmp_path / "b", planted=0.0, models=8, seed=1, undefined=2)


def compared(pair: tuple[FakeRun, FakeRun], **options: object) -> Diff:
    first, second = (mm.open_scores(run.output) for run in pair)
    return second.diff(first, **options)


def test_figures_are_those_of_the_joined_rows(pair: tuple[FakeRun, FakeRun]) -> None:
    made = compared(pair)
    frames = [mm.open_scores(run.output).pandas().set_index("key") for run in pair]
    both = frames[0].merge(frames[1], left_index=True, right_index=True, suffixes=("_a", "_b"))
    d = (both["multimem_b"] - both["multimem_a"]).dropna()
    told = made.summary
    assert (told["samples"], told["without_score"]) == (600, 6)
    assert told["mean"]["value"] == pytest.approx(d.mean())
    reach = stats.t.ppf(0.975, len(d) - 1) * d.sem()
    assert told["mean"]["high"] - told["mean"]["value"] >= 0.999 * reach
    pairs = both[["multimem_a", "multimem_b"]].dropna()
    expected = stats.spearmanr(pairs["multimem_a"], pairs["multimem_b"]).statistic
    assert told["correlation"]["value"] == pytest.approx(expected)
    assert told["correlation"]["low"] < expected < told["correlation"]["high"]
    rows = pq.read_table(made.url).to_pandas().set_index("key")
    assert len(rows) == 600
    error = np.hypot(both["multimem_error_a"], both["multimem_error_b"])
    assert rows["error"].sort_index().to_numpy() == pytest.approx(
        error.sort_index().to_numpy(), nan_ok=True
    )
    assert told["moved"]["up"] + told["moved"]["down"] == (rows["q"] <= 0.05).sum() > 60
    assert told["moved"]["low"] < told["moved"]["share"] < told["moved"]["high"]
    assert told["moved"]["down"] > 1.5 * told["moved"]["up"]


def test_the_largest_movers_come_first(pair: tuple[FakeRun, FakeRun]) -> None:
    made = compared(pair, movers=5)
    rows = pq.read_table(made.url).to_pandas()
    largest = rows["difference"].abs().sort_values(ascending=False)[:5]
    assert [abs(row["difference"]) for row in made.movers] == largest.tolist()
    assert made.movers[0]["q"] <= 0.05


def test_a_run_and_itself_are_the_same(pair: tuple[FakeRun, FakeRun], tmp_path: Path) -> None:
    first, _ = pair
    out = str(tmp_path / "same.parquet")
    made = compared((first, first), out=out)
    assert made.url == out
    assert made.summary["mean"]["value"] == 0.0
    assert made.summary["correlation"]["value"] == pytest.approx(1.0)
    assert made.summary["moved"]["share"] == 0.0


def test_without_errors_nothing_is_said_to_have_moved(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, models=2, seed=n) for n, name in enumerate("ab")]
    made = compared((runs[0], runs[1]))
    assert made.summary["moved"] is None
    assert all(row["q"] is None for row in made.movers)
    assert made.summary["mean"]["low"] is not None


def test_copies_are_one_draw(pair: tuple[FakeRun, FakeRun]) -> None:
    from tests.results.test_diff_rows import rewrite

    before = compared(pair).summary["mean"]
    for run in pair:
        rewrite(run, lambda frame: frame.__setitem__("group", ["one", "two"] * 100))
    after = compared(pair).summary["mean"]
    assert after["value"] == pytest.approx(before["value"])
    assert after["high"] - after["low"] > before["high"] - before["low"]
