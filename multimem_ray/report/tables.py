"""Tables for people: one self-contained page, everything in it escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import jinja2
import rich.table
from rich.table import Column
from rich.text import Text

from multimem_ray.foreign_text import line, visible
from multimem_ray.storage import Storage

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
  color: #1c2733; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #dde3ea }
th:first-child, td:first-child { text-align: left; min-width: 15rem }
td { font-variant-numeric: tabular-nums }
td:not(:first-child) { white-space: nowrap }
p { color: #51606f; max-width: 50rem }
.wide { overflow-x: auto }
@media (prefers-color-scheme: dark) {
  body { background: #12181f; color: #dce4ec } th, td { border-color: #2c3742 } p { color: #9fb0c0 }
}
</style></head><body>
<h1>{{ title }}</h1>
{% for table in tables %}
<section><h2>{{ table.title }}</h2>
<div class="wide"><table><thead><tr>
{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell | shown }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for note in table.notes %}<p>{{ note }}</p>{% endfor %}</section>
{% endfor %}
</body></html>
"""


@dataclass(frozen=True)
class Table:
    """A table with what is to be said of it.

    Args:
        title: Its heading.
        columns: Headings of the columns.
        rows: Cells: text, numbers, or None for what is not there.
        note: A sentence or two; or several such.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str | Sequence[str] = field(default="")

    @property
    def notes(self) -> list[str]:
        """The notes that there are."""
        found = [self.note] if isinstance(self.note, str) else list(self.note)
        return [note for note in found if note]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def write_page(url: str, storage: Storage, title: str, tables: Sequence[Table]) -> str:
    """Write the page; returns its URL."""
    html = _template().render(title=title, tables=tables)
    storage.write_atomic(url, html.encode())
    return url


def for_terminal(table: Table) -> rich.table.Table:
    """The table without its notes, for a console."""
    title, columns = Text(line(table.title)), [Column(Text(line(c))) for c in table.columns]
    printed = rich.table.Table(*columns, title=title, box=None, pad_edge=False)
    for row in table.rows:
        printed.add_row(*(Text(line(shown(cell))) for cell in row))
    return printed


def shown(cell: Any) -> str:
    """A cell as text; numbers with three decimals at most."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 10 else f"{cell:.1f}"
    return visible(str(cell))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["shown"] = shown
    return environment.from_string(_PAGE)
