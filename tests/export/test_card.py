"""The section for a data card."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

from multimem_ray.export.card import Findings, card
from multimem_ray.results.scores import open_scores
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run

HOSTILE = "<script>alert(1)</script> | [x](javascript:1) `\x1b[31m`\n# forged"


def test_figures_have_intervals_and_names_do_no_harm(tmp_path: Path) -> None:
    run = fake_run(tmp_path, labels=[HOSTILE, "plain"])
    text = card(Findings(ScoreTable(run.output, Storage())))
    for title in ("What was audited", "How", "Results", "What has no score", "Limits"):
        assert f"### {title}" in text
    mean = open_scores(run.output).pandas(["multimem"])["multimem"].mean()
    told = re.search(r"Mean MultiMem ([\d.]+) \(([\d.]+) to ([\d.]+)\)", text)
    assert told is not None
    assert float(told[1]) == round(mean, 3)
    assert float(told[2]) < mean < float(told[3])
    assert "design complementary halves" in text
    assert "3 decode/undecodable" in text
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in html
    assert "href" not in html
    assert "\x1b" not in text
    assert "<h1>" not in html
    assert html.count("<tr>") == 3


def test_a_card_is_of_the_rows_that_are_there(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    before = card(Findings(ScoreTable(run.output, Storage())))
    open_scores(run.output).summary()
    min(Path(run.output, "commits").iterdir()).unlink()
    after = card(Findings(ScoreTable(run.output, Storage())))
    assert "600 scored" in before
    assert "400 scored" in after


def test_a_finished_audit_has_a_card(finished: str) -> None:
    text = card(Findings(ScoreTable(finished, Storage())))
    assert "None" not in text
    assert "nan" not in text
