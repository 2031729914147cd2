"""Turns, medians, ratios within a turn, and the table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.benchmarks.figures import Figures, alternate, shown


def test_sides_take_turns_and_every_other_turn_goes_backwards() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], dict[str, float]]:
        def work() -> dict[str, float]:
            order.append(name)
            return {"s": float(len(order))}

        return work

    figures = alternate({name: side(name) for name in ("bare", "ours")}, 3)
    assert order == ["bare", "ours", "ours", "bare", "bare", "ours"]
    assert figures.rows == {"bare": {"s": [1, 4, 5]}, "ours": {"s": [2, 3, 6]}}


def test_a_ratio_is_of_the_same_turn_and_the_median_counts() -> None:
    figures = Figures()
    for rate in (100.0, 50.0, 10.0):
        figures.add("bare", {"samples/s": rate})
        figures.add("ours", {"samples/s": 0.9 * rate})
    figures.ratio("samples/s", "ours", "bare", "by bare")
    assert figures.median("ours", "by bare") == pytest.approx(0.9)
    assert figures.median("bare", "samples/s") == 50
    assert figures.median("naive", "samples/s") is None
    assert figures.as_dict()["bare"]["samples/s"] == {
        "median": 50,
        "lowest": 10,
        "highest": 100,
        "values": [100, 50, 10],
    }
    table = figures.tables("scoring")
    assert "| scoring | samples/s | by bare |" in table
    assert "| bare | 50.0 (10.0 – 100) | – |" in table


def test_rows_without_a_column_in_common_are_tables_of_their_own() -> None:
    figures = Figures()
    figures.add("read", {"MB/s": 1234.0})
    figures.add("decode", {"samples/s": 0.1234})
    assert (
        figures.tables("parts").split("\n\n")[0] == "| parts | MB/s |\n|---|---:|\n| read | 1,234 |"
    )
    assert "| decode | 0.123 |" in figures.tables("parts")


def test_numbers_show_what_counts() -> None:
    assert [shown(x) for x in (12345.6, 12.34, 1.234, 0.01234)] == [
        "12,346",
        "12.3",
        "1.23",
        "0.0123",
    ]
