"""The job that makes the papers' tables, at a size that says nothing of memorization."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from jobs.experiments.paper import __main__ as paper
from jobs.experiments.paper import published
from jobs.experiments.paper.study import Size, Study
from jobs.experiments.paper.tables import TABLES
from multimem_ray.progress import Progress

TINY = Size(samples=100, epochs=2, batch_size=16, width=4, seeds=2, views=1, models=4)
QUIET = Progress(Console(file=io.StringIO()))


def test_a_table_and_what_agrees(tmp_path: Path) -> None:
    made = TABLES["pairs"](Study(tmp_path, replace(TINY, seeds=1), QUIET))
    table = made.tables[0]
    assert [row[0] for row in table.rows] == list(published.SPLITS)
    scores = sorted((tmp_path / "single" / "candidate-0" / "scores").glob("*/*.parquet"))
    rows = pa.concat_tables([pq.read_table(file) for file in scores]).to_pylist()
    for place, split in ((1, "S_C"), (2, "S_I"), (3, "S_S")):
        own = [row["multimem_normalized"] for row in rows if row["split"] == split]
        assert table.rows[0][place] == pytest.approx(sum(own) / len(own))
    assert all(finding.detail for finding in made.findings)
    json.dumps(made.as_dict())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "QUICK", TINY)
    paper.main(["--quick", "--out", str(tmp_path / "paper")])
    content = json.loads((tmp_path / "paper" / "paper.json").read_text())
    assert len(content["tables"]) == len(TABLES)
    assert all(made["findings"] for made in content["tables"].values())
    page = (tmp_path / "paper" / "paper.html").read_text()
    assert page.count("<h2>") >= 2 * len(TABLES)
