"""Tables as a page and in a terminal: everything in them is escaped."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from multimem_ray.report.tables import Table, for_terminal, write_page
from multimem_ray.storage import Storage


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    table = Table("<b>", ["a"], [["<i>"], [None], [1.23456], [3]], ["one", ""])
    url = write_page(str(tmp_path / "p.html"), Storage(), "<t>", [table])
    html = Path(url).read_text()
    assert "<i>" not in html
    assert "&lt;i&gt;" in html
    assert "<td>1.235</td>" in html
    assert "<td>–</td>" in html
    assert html.count("<p>") == 1


def test_a_terminal_shows_brackets_as_they_are() -> None:
    table = Table("t", ["a", "b"], [["[red]x", 12.345], [None, 0.5]])
    text = io.StringIO()
    Console(file=text, width=80).print(for_terminal(table))
    assert "[red]x" in text.getvalue()
    assert "12.3" in text.getvalue()
    assert "–" in text.getvalue()
