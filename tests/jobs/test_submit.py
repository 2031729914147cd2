"""Audits as submitted jobs: they succeed, fail with the reason, and resume."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from multimem_ray.demo.dataset import make_demo_shards
from tests.jobs.cluster import Head, own_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="mm-", dir="/tmp"))  # sockets allow short paths only
    try:
        with own_head(folder) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute's audit of the demo's pictures and captions."""
    folder = tmp_path_factory.mktemp("job")
    make_demo_shards(folder / "data", samples=48, shards=2)
    content = {
        "output": str(folder / "run"),
        "data": {
            "shards": str(folder / "data" / "*.tar"),
            "fields": {"image": "jpg", "text": "txt"},
        },
        "held_out": {"fraction": 0.2},
        "design": {"models": 2},
        "training": {"epochs": 2, "batch_size": 8},
        "scoring": {"views": 1},
        "resources": {"cache_dir": str(folder / "cache")},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@contextlib.contextmanager
def metrics_of(head: Head) -> Iterator[set[str]]:
    """Names and tags of our metrics that a Prometheus sees while the block runs."""
    seen: set[str] = set()
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(1.0):
            with contextlib.suppress(OSError), urllib.request.urlopen(head.metrics) as answer:
                lines = answer.read().decode().splitlines()
                seen.update(line.split(" ")[0] for line in lines if "ray_multimem_" in line[:14])

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_succeeds_and_resumes(head: Head, config: Path) -> None:
    with metrics_of(head) as seen:
        first = head.submit("first", "python", "jobs/audit.py", str(config))
    names = {re.split(r"[{ ]", line)[0] for line in seen}
    assert names >= {
        "ray_multimem_samples_total",
        "ray_multimem_seconds_total",
        "ray_multimem_commits_total",
        "ray_multimem_loss",
    }
    stages = {found for line in seen for found in re.findall(r'stage="(\w+)"', line)}
    assert stages >= {"train", "score", "decode", "embed"}
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Job 'first' succeeded" in head.status("first")
    log = head.log("first")
    assert "training 2 reference models in 1 bank, 2 epochs" in log
    assert "train: 4/4 epochs in" in log, "a plain progress line"
    assert "score: 2/2 shards in" in log
    ours = log[log.index("modalities:") :]
    assert "\x1b" not in ours, "no colours"
    assert "\r" not in ours, "no bars"
    output = config.parent / "run"
    assert (output / "report.html").exists()
    markers = {path: path.stat().st_mtime_ns for path in (output / "commits").iterdir()}
    models = {path: path.stat().st_mtime_ns for path in (output / "models").glob("*/DONE")}
    assert len(markers) == 2
    assert len(models) == 2

    # One commit is lost; the same job again does that shard, and nothing else.
    lost = min(markers)
    lost.unlink()
    again = head.submit("again", "python", "jobs/audit.py", str(config))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "reference models: all trained before" in again.stdout
    assert "scoring 1 shards, 1 done before" in again.stdout
    after = {path: path.stat().st_mtime_ns for path in (output / "commits").iterdir()}
    assert set(after) == set(markers)
    assert {p: t for p, t in after.items() if p != lost} == {
        p: t for p, t in markers.items() if p != lost
    }
    assert {path: path.stat().st_mtime_ns for path in models} == models


def test_parts_as_jobs(head: Head, config: Path) -> None:
    output = config.parent / "parts"
    here = ("--set", f"output={output}")
    early = head.submit("early", "python", "jobs/score.py", str(config), *here)
    assert early.returncode == 1
    assert "not trained yet" in early.stdout
    for part in ("train", "score", "report"):
        done = head.submit(part, "python", f"jobs/{part}.py", str(config), *here)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (output / "report.html").exists()


def test_fails_with_the_reason(head: Head, config: Path) -> None:
    bad = head.submit("bad", "python", "jobs/audit.py", str(config), "--set", "training.epoch=3")
    assert bad.returncode == 1
    assert "Job 'bad' failed" in head.status("bad")
    log = head.log("bad")
    assert "error: unknown config key 'training.epoch'; did you mean 'epochs'?" in log
    assert "Traceback" not in log


def test_without_the_token_nobody_is_let_in(head: Head, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64, encoding="utf-8")
    stranger = Head(head.dashboard, head.metrics, {**head.env, "RAY_AUTH_TOKEN_PATH": str(wrong)})
    assert stranger.ray("job", "list").returncode != 0
