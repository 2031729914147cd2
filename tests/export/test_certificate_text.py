"""Certificates for people: no name from a shard leaves its place."""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt

from multimem_ray.export.certificate_text import as_markdown

HOSTILE = "` | <script>alert(1)</script> [x](javascript:1)\n# forged \x1b[31m"


def content(name: str, **more: Any) -> dict[str, Any]:
    shard = {"url": name, "version": name, "size": 1, "sha256": "0" * 64}
    after = {"url": name, "size": 1, "sha256": "1" * 64}
    told = {"before": shard, "after": after, "samples": 2, "kept": 1, "removed": 1}
    own = {"multimem": 1.5, "low": 1.0, "high": 2.0, "q": 0.01}
    return {
        "multimem_ray": "0.2.0",
        "sha256": "2" * 64,
        "samples": 2,
        "kept": 1,
        "removed": 1,
        "rule": {
            "removed": "the listed",
            "list": name,
            "selection": {"by": name, "asked": {"top": 1, "by": name}},
        },
        "scores": {
            "before": {"run": name, "fingerprint": "f", "scored": 1, "not_scored": 0, "mean": 1.5},
            "after": None,
        },
        "shards": [told, {**told, "after": None}],
        "examples": [{"shard": name, "key": name, "before": own, "after": None}],
        **more,
    }


def test_hostile_names_stay_text() -> None:
    html = MarkdownIt("commonmark").enable("table").render(as_markdown(content(HOSTILE)))
    assert "<script" not in html
    assert "href" not in html
    assert html.count("<h1>") == 1
    assert "\x1b" not in html
    rows = html.count("<tr>")
    assert (
        rows
        == MarkdownIt("commonmark")
        .enable("table")
        .render(as_markdown(content("plain")))
        .count("<tr>")
        == 5
    )


def test_figures_and_what_is_unknown() -> None:
    text = as_markdown(content("plain"))
    assert "| 1.500 (1.000 to 2.000) | – |" in text
    assert "nothing is left" in text
    assert "mean MultiMem 1.500; 0 not scored there" in text
    bare = {"removed": "all but the listed", "list": None}
    assert "all but the listed samples of `a list`" in as_markdown(content("plain", rule=bare))
