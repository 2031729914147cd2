"""Text that others wrote, made safe to look at: in a terminal, a log and a page alike.

Keys, captions, labels, names of shards and what decoders say of them may hold escape sequences that
move a terminal's cursor, line feeds that forge a line, and marks that turn the reading around.
"""

from __future__ import annotations

import logging
import unicodedata

JOINERS = "\u200c\u200d"  # letters of Persian and of Indian scripts, and emoji, are joined by them
CHARACTERS = 600
_HIDING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def visible(text: str, most: int = CHARACTERS) -> str:
    """The text without control characters and reversed reading, bounded; its line feeds stay.

    Escaping for HTML is the template's; this keeps a text from hiding or reordering what stands
    beside it.
    """
    shown = "".join(c if c == "\n" else _harmless(c) for c in text[: most + 1]).strip()
    return shown[:most] + "…" if len(shown) > most else shown


def line(text: object, most: int = 4000) -> str:
    """The text on one line: as :func:`visible`, with spaces for its line feeds."""
    shown = "".join(map(_harmless, str(text)[: most + 1]))
    return shown[:most] + "…" if len(shown) > most else shown


def _harmless(character: str) -> str:
    if character in JOINERS or unicodedata.category(character) not in _HIDING:
        return character
    return " "


class LineFormatter(logging.Formatter):
    """Formats a record of a log on one line, whatever a shard or a library put into it.

    A traceback follows on lines of its own, indented, so that it forges no record.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return line(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"    {visible(part, 4000)}" for part in text.splitlines())
