"""Nothing that others wrote moves a cursor, forges a line or turns the reading around."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from multimem_ray.foreign_text import LineFormatter, line, visible
from multimem_ray.progress import Progress
from multimem_ray.report.tables import Table, for_terminal

EVIL = "a[/b]:x:\x1b[31m\u202ered\nerror: forged\r\x9b2J\u2028z"


def test_visible_texts_hide_nothing_and_reverse_nothing() -> None:
    assert visible("a\u202eb\x00c\u200bd\ue000") == "a b c d"
    assert visible("x" * 1000, 10) == "x" * 10 + "…"
    family = "\U0001f468\u200d\U0001f469 می\u200cخواهم"
    assert visible(family) == family
    assert visible("two\nlines") == "two\nlines"


def test_a_line_is_one_line() -> None:
    assert line(EVIL) == "a[/b]:x: [31m red error: forged  2J z"
    assert line("  4 × read") == "  4 × read"
    assert line("x" * 5000) == "x" * 4000 + "…"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_said_stays_as_it_is(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    Progress(console).say(EVIL)
    console.print(for_terminal(Table(EVIL, [EVIL], [[EVIL]])))
    text = out.getvalue()
    assert text.count("a[/b]:x:") == 4
    assert not {"\u202e", "\r", "\x9b", "\u2028", "\x1b[31m"} & {*text} | {
        bad for bad in ("\x1b[31m", "\nerror:") if bad in text
    }


def test_a_record_of_a_log_is_one_line_and_its_traceback_is_indented() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("foreign")
    log.addHandler(handler)
    try:
        int(EVIL)
    except ValueError:
        log.exception("key %s", EVIL)
    first, *rest = out.getvalue().splitlines()
    assert first == f"ERROR key {line(EVIL)}"
    assert rest
    assert all(text.startswith("    ") for text in rest)
    assert "\x1b" not in out.getvalue()
