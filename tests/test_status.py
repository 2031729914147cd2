"""What the files of a run tell of how far it is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.audit import report, score, train
from multimem_ray.run import load_run
from multimem_ray.setup import open_run
from multimem_ray.status import RunStatus, follow, run_status
from multimem_ray.storage import Storage
from tests.results.fake_run import fake_run
from tests.small import QUIET, small_run


def status(folder: str) -> RunStatus:
    return run_status(folder, load_run(folder, Storage()), Storage())


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_sums_are_those_of_the_markers(tmp_path: Path) -> None:
    folder = Path(fake_run(tmp_path, shards=3, rows=20, held_out=10).output)
    edit(folder / "run.json", shards=5)
    held_out = {"fingerprint": "feedfacefeedface", "undecodable": 2, "killed": ["a"]}
    edit(folder / "held_out" / "held_out.json", **held_out)
    shown = status(str(folder))
    assert (shown.models, shown.models_done) == (4, 0)
    assert (shown.shards, shown.shards_done, shown.missing) == (5, 3, 1)
    assert (shown.rows, shown.held_out, shown.errors) == (60, 30, 9)
    told = dict(shown.lines())
    assert told["shards"] == "3 of 5 committed, 1 missing"
    assert told["samples"] == "60 scored, 30 held out"
    assert told["left out of the held-out set"].startswith("2 could not be used, 1 killed")
    assert "rate" not in told, "all markers are of one moment: no rate can be told"


def test_what_belongs_to_an_earlier_configuration_does_not_count(tmp_path: Path) -> None:
    folder = Path(fake_run(tmp_path, shards=2, rows=20).output)
    edit(folder / "held_out" / "held_out.json", fingerprint="other", undecodable=2)
    edit(folder / "run.json", fingerprint="0123456789abcdef")
    shown = status(str(folder))
    assert (shown.shards_done, shown.rows, shown.errors, shown.undecodable) == (0, 0, 0, 0)


def test_the_rate_is_that_of_recent_commits(tmp_path: Path) -> None:
    folder = Path(fake_run(tmp_path, shards=4, rows=20).output)
    edit(folder / "run.json", shards=8)
    now = time.time()
    for number, marker in enumerate(sorted((folder / "commits").iterdir())):
        edit(marker, finished_at=now - 40 + 10 * number)
    shown = status(str(folder))
    # Four shards since the first of them was committed, forty seconds ago.
    assert shown.shards_per_s == pytest.approx(0.1, rel=0.1)
    assert shown.left_s == pytest.approx(40, rel=0.1)
    assert "shards/s" in dict(shown.lines())["rate"]


def test_who_follows_a_run_hears_what_changes_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = small_run(tmp_path, "design.models=2", "training.epochs=2")
    said, steps = list[str](), iter(["train", "score", "report"])
    open_run(run.config)

    def work(_: float) -> None:
        match next(steps):
            case "train":
                train(run.config, QUIET, executor="local")
            case "score":
                score(run.config, QUIET, executor="local")
                Path(run.output, "summary.json").unlink()
            case "report":
                report(run.config, QUIET)

    monkeypatch.setattr("multimem_ray.status.time.sleep", work)
    done = follow(run.output, Storage(), said.append)
    assert [line.partition(":")[0] for line in said] == ["train", "score", "report", "done"]
    assert said[0] == "train: 0 of 2 models, 0 of 4 epochs"
    assert done.stage == "done"
    told = dict(done.lines())
    assert told["took so far"].endswith("core-hours, of ended stages")
    assert told["opened by"].startswith(f"process {os.getpid()} on ")
