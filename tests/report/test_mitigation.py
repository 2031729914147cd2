"""The page of a mitigation, from figures and hostile names."""

from __future__ import annotations

from typing import Any

from multimem_ray.report.mitigation import render_mitigation
from multimem_ray.report.samples import Content
from multimem_ray.report.tables import Table
from tests.report.fake_shards import HOSTILE
from tests.report.test_outcome import result

TABLES = (Table("Mean MultiMem", ["samples"], [["all samples"]]), Table("Utility", ["task"], []))


def whole(**recipe: Any) -> dict[str, Any]:
    made = result(-0.05)
    made["memory"] |= {
        "samples": 100,
        "count": {"chosen": 20},
        "curves": {"before": [[0.1, 0.0], [0.9, 1.0]], "after": [[0.1, 0.0], [0.9, 0.5]]},
        "treated": [{"key": HOSTILE, "shard": "a.tar", "before": 0.9, "after": 0.1}],
    }
    chosen = {"kind": "in_training", "by": "cmc_out", "percent": 5.0, "top": None}
    chosen |= {"treatment": "drop", "references": "runs/first"}
    loss = {"before": [[0, 2.0]], "after": [[0, 2.0]]}
    return made | {"recipe": chosen | recipe, "loss": loss, "overhead": None}


def test_it_says_what_was_done_against_what_and_shows_who_was_treated() -> None:
    contents = {("a.tar", HOSTILE): [Content("text", "text", lines=(HOSTILE,))]}
    html = render_mitigation(whole(), TABLES, contents)
    for words in ("left out of training", "runs/first", "less is memorized", "0.900 → 0.100"):
        assert words in html
    assert "There is no history of two epochs." in html
    assert HOSTILE not in html
    assert "default-src &#39;none&#39;" in html


def test_a_control_is_called_one() -> None:
    assert "is itself a control" in render_mitigation(whole(by="random"), TABLES, {})
    assert "mitigation.by: random tells" in render_mitigation(whole(), TABLES, {})
