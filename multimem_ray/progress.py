"""Progress on long work: bars on a terminal, one plain line every 30 seconds elsewhere.

Work runs in other processes, so it is counted where all of them reach it; whoever waits for the
work asks the counter and shows what it says.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from multimem_ray.foreign_text import line

_PLAIN_EVERY_S = 30.0
_LOOK_EVERY_S = 0.5


class Counter(Protocol):
    """What work counts on, and whoever waits for it looks at."""

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        """``amount`` more units of a task are done."""

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        """Units of a task that are done, and the latest notes."""

    def stop(self) -> None:
        """Ask whoever counts to keep what is under way, and to end."""

    def is_stopping(self) -> bool:
        """Whether whoever counts shall end; does not wait."""


class Progress:
    """Shows what is going on.

    Args:
        console: Where; bars if it is a terminal, plain lines otherwise.
        every_s: Seconds between plain lines.
    """

    def __init__(self, console: Console | None = None, every_s: float = _PLAIN_EVERY_S) -> None:
        self.console = console or Console(stderr=True)
        self.every_s = every_s

    def say(self, text: str) -> None:
        """One line about what happens."""
        self.console.print(line(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str, done: int = 0) -> Iterator[Shown]:
        """Show a task of ``total`` units while the block runs; ``done`` of them from earlier."""
        if not self.console.is_terminal:
            shown = Shown(self, name, total, unit, done)
            yield shown
            self.say(shown.last_line())
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        with Bars(*columns, console=self.console, transient=False) as bars:
            number = bars.add_task(name, total=total, completed=done, detail="")
            yield Shown(self, name, total, unit, done, bars, number)


class Shown:
    """A task on display; made by :meth:`Progress.task`."""

    def __init__(
        self,
        progress: Progress,
        name: str,
        total: int,
        unit: str,
        done: int,
        bars: Bars | None = None,
        number: Any = None,
    ) -> None:
        self._progress, self._name, self._unit = progress, name, unit
        self.total, self._before, self.done = total, done, done
        self._bars, self._number = bars, number
        self._started = self._said = time.monotonic()

    def update(self, done: int, detail: str = "") -> None:
        """``done`` units are complete, counting those from earlier."""
        self.done = done
        if self._bars is not None:
            self._bars.update(self._number, completed=done, detail=detail)
        elif time.monotonic() - self._said >= self._progress.every_s:
            self._said = time.monotonic()
            self._progress.say(self.line(detail))

    def resize(self, done: int, total: int) -> None:
        """``done`` of now ``total`` units are complete."""
        self.total = total
        if self._bars is not None:
            self._bars.update(self._number, total=total)
        self.update(done)

    @property
    def seconds(self) -> float:
        """Time since the task began."""
        return max(time.monotonic() - self._started, 1e-9)

    def last_line(self) -> str:
        """The plain line when the task is over."""
        rate = (self.done - self._before) / self.seconds
        counted = f"{self.done}/{self.total} {self._unit}"
        return f"{self._name}: {counted} in {self.seconds:.0f} s, {rate:.2f} {self._unit}/s"

    def line(self, detail: str = "") -> str:
        """The plain line: done, total, share, rate, time left."""
        seconds = self.seconds
        rate = (self.done - self._before) / seconds
        left = f"{(self.total - self.done) / rate:.0f} s left" if rate > 0 else "time left unknown"
        share = 100 * self.done / self.total if self.total else 100
        text = f"{self._name}: {self.done}/{self.total} {self._unit} ({share:.0f} %)"
        return ", ".join(filter(None, [text, f"{rate:.2f} {self._unit}/s", left, detail]))


def finished_with_progress(
    work: Iterable[Future[Any]], counter: Counter, task: str, shown: Shown
) -> Iterator[Future[Any]]:
    """Yield pieces of work as they finish, showing meanwhile what the counter says."""
    waiting = set(work)
    while waiting:
        ready, waiting = wait(waiting, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        done, notes = counter.look(task)
        loss = notes.get("loss")
        shown.update(min(done, shown.total), "" if loss is None else f"loss {loss:.3f}")
        yield from ready
