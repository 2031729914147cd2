"""Code blocks of a Markdown page, and the commands in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Name of the page.
        line: Where it begins.
        language: What the fence names.
        text: Its content.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str, *pages: Path) -> list[Block]:
    """Blocks of a language in some pages; default all of README.md and docs/."""
    return [
        Block(page.name, token.map[0] + 1, language, token.content)
        for page in pages or PAGES
        for token in MarkdownIt().parse(page.read_text())
        if token.type == "fence" and token.info == language and token.map
    ]


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block as words, without comments; of our own environment."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]
