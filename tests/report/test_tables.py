"""Tables on a page and in a terminal, everything in them escaped."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.report.tables import Table, for_terminal, shown, write_page
from multimem_ray.storage import Storage

EVIL = "<script>alert(1)</script>[bold]"


@pytest.mark.parametrize(
    ("cell", "text"), [(None, "–"), (0.12345, "0.123"), (123.456, "123.5"), (7, "7"), ("a", "a")]
)
def test_cells_have_three_decimals_at_most(cell: object, text: str) -> None:
    assert shown(cell) == text


def test_a_page_is_escaped(tmp_path: Path) -> None:
    table = Table(EVIL, ("name", "value"), [(EVIL, 0.5)], note=["", "said once"])
    assert table.notes == ["said once"]
    html = Path(write_page(str(tmp_path / "p.html"), Storage(), EVIL, [table])).read_text("utf-8")
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 4
    assert "<p>said once</p>" in html
    assert table.as_dict()["rows"] == [(EVIL, 0.5)]


def test_a_terminal_shows_markup_as_text() -> None:
    printed = for_terminal(Table("t", ("name",), [("[bold]x",)]))
    assert [str(cell) for cell in printed.columns[0].cells] == ["[bold]x"]
