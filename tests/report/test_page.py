"""The page's parts: standing of a sample, colours, and what the configuration says."""

from __future__ import annotations

import re
from pathlib import Path

from multimem_ray.report.page import RunView, colour, render
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


def test_a_plugins_modality_keeps_its_colour() -> None:
    assert colour("image") == "m0"
    assert colour("touch") == colour("touch") in {"m4", "m5", "m6", "m7"}


def test_cards_tell_rank_and_both_sides(tmp_path: Path) -> None:
    run = fake_run(tmp_path, modalities=("image", "text"))
    table = ScoreTable(run.output, Storage())
    rows, low = top(table, "multimem", 3), top(table, "cmc_out", 2)
    view = RunView(summarize(table), table.document("run.json"), rows, low, title="An <audit>")
    html = render(view)
    assert html.count("<article") == 5
    assert "An &lt;audit&gt;" in html
    assert "higher than" in html
    assert "lower than" in html
    assert re.search(r"cmc_out [−0-9.]+", html)
    assert html == render(view)


def test_a_run_that_tells_nothing_has_a_page() -> None:
    summary = summarize(ScoreTable("/nowhere", Storage()))
    assert "No sample has been scored yet." in render(RunView(summary, {}))
