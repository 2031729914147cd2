"""The feed of the models is measured beside the bare decoder, on one core and on two."""

from __future__ import annotations

from pathlib import Path

from jobs.benchmarks import feed
from jobs.benchmarks.feed import RATE
from jobs.benchmarks.thresholds import load_thresholds


def test_sides_take_turns_on_one_core_and_on_two(tmp_path: Path) -> None:
    options = feed.Options(samples=8, picture=40, size=32, repeats=1, sides=("bare", "training"))
    rows = feed.measure(options, tmp_path).rows
    assert set(rows) == {"bare, 1 core", "bare, 2 cores", "training, 1 core", "training, 2 cores"}
    assert all(len(row[RATE]) == 1 and row[RATE][0] > 0 for row in rows.values())
    for cores in ("1 core", "2 cores"):
        ratio = rows[f"training, {cores}"][RATE][0] / rows[f"bare, {cores}"][RATE][0]
        assert rows[f"training, {cores}"]["by bare"] == [ratio]
    assert rows["bare, 2 cores"]["by one core"] == [
        rows["bare, 2 cores"][RATE][0] / rows["bare, 1 core"][RATE][0]
    ]


def test_every_side_counts_the_samples_that_reach_the_sink(tmp_path: Path) -> None:
    feed.make_shards(tmp_path / "shards", 8, 40)
    run, shards = feed.inspect(feed.config_of(str(tmp_path), 32))
    counts = {
        (kind, viewed): sum(side(run, shards, tmp_path, 1, viewed=viewed))
        for kind, side in feed.SIDES.items()
        for viewed in (False, True)
    }
    trained = 8 - sum(run.held_out_rule.is_held_out([f"{n:08d}"], "")[0] for n in range(8))
    assert counts.pop(("training", False)) == counts.pop(("training", True)) == trained
    assert set(counts.values()) == {8}


def test_thresholds_are_of_rows_that_there_are() -> None:
    sides = feed.Options().sides
    rows = {f"{side}, {cores}" for side in sides for cores in ("1 core", "2 cores")}
    assert load_thresholds()["feed"].keys() <= rows
