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


def test_only_what_stands_out_is_called_most_memorized(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    table = ScoreTable(run.output, Storage())
    summary, rows = summarize(table), top(table, "multimem", 3)
    sure = [{**row, "multimem_low": 0.1, "multimem_high": 1.0, "multimem_q": 0.0} for row in rows]
    unsure = [{**row, "multimem_low": -0.1, "multimem_high": 1.0} for row in rows]
    document = table.document("run.json")
    html = render(RunView(summary, document, [*sure[:2], unsure[2]]))
    assert "The most memorized samples" in html
    assert html.index("High scores that may be chance") < html.index("Not distinguishable from n")
    html = render(RunView(summary, document, unsure))
    assert "most memorized samples" not in html
    assert html.count("Not distinguishable from noise: 95 % interval −0.100 to 1.000.") == 3
    assert re.search(r"The (audio|image|text) fits the others least", html)


def test_evaluation_and_mitigation_stand_on_the_page_when_there_are_some(tmp_path: Path) -> None:
    from tests.report.test_outcome import evaluation, result

    table = ScoreTable(fake_run(tmp_path).output, Storage())
    summary, document = summarize(table), table.document("run.json")
    html = render(
        RunView(summary, document, evaluation=evaluation(0.182), mitigation=result(-0.05))
    )
    assert "What the models can do" in html
    assert "18.2 %" in html
    assert "less is memorized" in html
    assert 'id="evaluation"' not in render(RunView(summary, document))
