"""What a benchmark measured, turn by turn, and the one table that shows it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console

Side = Callable[[], Mapping[str, float]]
"""A way to do the work: does it once and tells its figures, column → value."""

_SAY_FROM_S = 1.0


class Figures:
    """Rows (a side, a size, a process) of columns with a value for each turn.

    The name of a column says its unit; a ratio has none.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, list[float]]] = {}

    def add(self, row: str, values: Mapping[str, float]) -> None:
        """One more turn of a row."""
        columns = self.rows.setdefault(row, {})
        for column, value in values.items():
            columns.setdefault(column, []).append(value)

    def ratio(self, column: str, above: str, below: str, name: str, row: str | None = None) -> None:
        """Add a column: the ratio of two rows in each turn, so that both met the same machine.

        Args:
            column: What is divided.
            above: Row of the numerator.
            below: Row of the denominator.
            name: The new column.
            row: Receives it; default: ``above``.
        """
        pairs = zip(self.rows[above][column], self.rows[below][column], strict=True)
        self.rows.setdefault(row or above, {})[name] = [a / b for a, b in pairs]

    def median(self, row: str, column: str) -> float | None:
        """The median over the turns; None where nothing was measured."""
        values = self.rows.get(row, {}).get(column)
        return statistics.median(values) if values else None

    def as_dict(self) -> dict[str, dict[str, dict[str, object]]]:
        """For JSON: row → column → median, lowest, highest and all values."""
        return {
            row: {
                column: {
                    "median": statistics.median(values),
                    "lowest": min(values),
                    "highest": max(values),
                    "values": values,
                }
                for column, values in columns.items()
            }
            for row, columns in self.rows.items()
        }

    def tables(self, title: str) -> str:
        """Markdown: median (lowest – highest); rows without a column in common stand apart."""
        groups: list[list[str]] = []
        for row, columns in self.rows.items():
            if not groups or columns.keys().isdisjoint(self.rows[groups[-1][-1]]):
                groups.append([])
            groups[-1].append(row)
        return "\n".join(line for group in groups for line in self._table(title, group))

    def _table(self, title: str, rows: Sequence[str]) -> Iterator[str]:
        columns = list(dict.fromkeys(column for row in rows for column in self.rows[row]))
        yield f"| {title} | {' | '.join(columns)} |"
        yield f"|---|{'---:|' * len(columns)}"
        for row in rows:
            cells = (_cell(self.rows[row].get(column, [])) for column in columns)
            yield f"| {row} | {' | '.join(cells)} |"
        yield ""


def alternate(sides: Mapping[str, Side], turns: int, figures: Figures | None = None) -> Figures:
    """Let sides work in turns, every other turn in the reverse order.

    What else goes on on the machine, and what warms up, then meets all of them.
    """
    figures = figures or Figures()
    say = Console(stderr=True).print
    for turn in range(turns):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            started = time.monotonic()
            figures.add(name, sides[name]())
            seconds = time.monotonic() - started
            if seconds > _SAY_FROM_S:
                say(f"turn {turn + 1} of {turns}: {name}, {seconds:.0f} s", markup=False)
    return figures


def shown(value: float) -> str:
    """Three digits that count, and no more than there are."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ({shown(min(values))} – {shown(max(values))})" if len(values) > 1 else ""
    return shown(statistics.median(values)) + spread
