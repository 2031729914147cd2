"""Progress: plain lines with rate and time left where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from multimem_ray.prefetch import ahead
from multimem_ray.progress import Progress


def shown(terminal: bool, every_s: float) -> tuple[Progress, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120)
    return Progress(console, every_s), file


def test_plain_lines_have_count_rate_and_time_left() -> None:
    progress, file = shown(False, 0.0)
    with progress.task("score", 10, unit="shards", done=2) as task:
        task.update(6, "99 samples")
    line = file.getvalue()
    assert line.startswith("score: 6/10 shards (60 %), ")
    assert "shards/s, " in line
    assert " s left, 99 samples" in line


def test_plain_lines_come_seldom() -> None:
    progress, file = shown(False, 30.0)
    with progress.task("score", 1000, unit="shards") as task:
        for number in range(1000):
            task.update(number + 1)
    line = file.getvalue()
    assert line.startswith("score: 1000/1000 shards in 0 s, "), "only how it ended"
    assert line.count("\n") == 1


def test_a_terminal_gets_a_bar() -> None:
    progress, file = shown(True, 30.0)
    with progress.task("train", 4, unit="epochs") as task:
        task.update(4, "loss 1.0")
    assert "4/4" in file.getvalue()
    assert "loss 1.0" in file.getvalue()


def test_the_total_may_change() -> None:
    progress, file = shown(False, 0.0)
    with progress.task("plant", 1, unit="steps") as task:
        task.resize(3, 6)
    assert "3/6 steps (50 %)" in file.getvalue()


def test_ahead_keeps_the_order() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))


def test_ahead_hands_on_what_was_raised() -> None:
    def items() -> object:
        yield 1
        raise ValueError("broken")

    found = ahead(items(), 2)  # type: ignore[arg-type, var-annotated]
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)


def test_ahead_stops_its_thread_when_nobody_listens_any_more() -> None:
    produced = []

    def items() -> object:
        for number in range(10**9):
            produced.append(number)
            yield number

    found = ahead(items(), 2)  # type: ignore[arg-type, var-annotated]
    next(found)
    found.close()  # type: ignore[attr-defined]
    count = len(produced)
    assert len(produced) == count < 10
