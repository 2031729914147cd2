"""A summary is of what it says it was made from: nothing is read twice, and nothing is missed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.audit import report, write_summary
from multimem_ray.errors import MultiMemError
from multimem_ray.progress import Progress
from multimem_ray.results import summary as summaries
from multimem_ray.results.sources import sources_digest
from multimem_ray.results.table import ScoreTable
from multimem_ray.setup import resolve
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run


def digest(output: str, planted: str | None = None) -> str:
    return sources_digest(ScoreTable(output, Storage()), planted)


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def first(folder: Path, pattern: str) -> Path:
    return min(folder.rglob(pattern))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a score file": lambda run: touch(first(run / "scores", "*.parquet")),
    "a commit fewer": lambda run: first(run / "commits", "*.json").unlink(),
    "the held-out set": lambda run: touch(run / "held_out" / "held_out.json"),
    "the configuration": lambda run: edit(run / "run.json", fingerprint="other"),
    "a missing shard": lambda run: edit(run / "run.json", missing=["/data/set-99999.tar"]),
    "models were added": lambda run: (run / "growth.json").write_text("{}", "utf-8"),
}


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_summary_is_made_from_changes_its_digest(tmp_path: Path, change: str) -> None:
    run = fake_run(tmp_path, rows=5)
    before = digest(run.output)
    edit(Path(run.output, "run.json"), started_at="later", versions={"numpy": "0"})
    assert digest(run.output) == before
    CHANGES[change](Path(run.output))
    assert digest(run.output) != before


def test_the_truth_about_planted_samples_counts(tmp_path: Path) -> None:
    run = fake_run(tmp_path, rows=5)
    before = digest(run.output, run.truth)
    assert before != digest(run.output)
    touch(Path(run.truth))
    assert digest(run.output, run.truth) != before


def test_a_summary_of_the_same_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, rows=50)
    config = resolve({"output": run.output, "data": {"shards": str(tmp_path / "*.tar")}})
    made = report(config)
    page, file = Path(run.output, "report.html"), Path(run.output, "summary.json")
    times = [path.stat().st_mtime_ns for path in (page, file)]

    summarize, calls = summaries.summarize, list[int]()

    def counted(*args: Any, **options: Any) -> dict[str, Any]:
        calls.append(1)
        return summarize(*args, **options)

    monkeypatch.setattr(summaries, "summarize", counted)
    again = report(config, again=False)
    assert not calls
    assert [path.stat().st_mtime_ns for path in (page, file)] == times
    assert {name: value for name, value in again.items() if name != "report"} == made

    page.unlink()
    report(config, again=False)
    assert page.exists()
    assert not calls
    file.write_text("{", "utf-8")
    # Made anew: sums over threads may differ in their last digit.
    anew = write_summary(config, Progress())["scores"]
    assert anew["multimem"]["mean"] == pytest.approx(made["scores"]["multimem"]["mean"])
    assert len(calls) == 1
    first(Path(run.output, "scores"), "*.parquet").write_bytes(b"something else")
    with pytest.raises(MultiMemError, match="parquet"):
        write_summary(config, Progress())
