"""Who was frozen and replaced overwrites nothing when it wakes, and says so in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from multimem_ray.audit import audit
from multimem_ray.errors import ReplacedError
from multimem_ray.fence import Fence, take
from multimem_ray.progress import Progress
from multimem_ray.results.table import ScoreTable
from multimem_ray.storage import Storage
from tests.s3 import S3Server
from tests.small import small_config, write_shards

# Stops itself just before the first Parquet of its scores; whoever wakes it lets it go on.
FROZEN = """
import os, signal, sys
from multimem_ray import cli
from multimem_ray.store import commits

write, mark = commits.CommitLog._write, sys.argv.pop()

def stopped(self, url, table, encode):
    if "/scores/" in url and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    return write(self, url, table, encode)

commits.CommitLog._write = stopped
sys.argv = ["multimem", "audit", sys.argv[1], "--local"]
cli.main()
"""


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    """A storage and an empty folder in it."""
    if request.param == "disk":
        return Storage(), str(tmp_path / "out")
    server: S3Server = request.getfixturevalue("s3_server")
    return server.storage, server.bucket() + "/out"


def test_whoever_opens_last_writes(place: tuple[Storage, str]) -> None:
    storage, output = place
    first = take(storage, output, {})
    first.require()
    assert (first.epoch, first.suffix) == (1, "")
    second = take(storage, output, {})
    assert (second.epoch, second.suffix) == (2, ".e2")
    second.require()
    with pytest.raises(ReplacedError, match=f"process {os.getpid()} on ") as caught:
        first.require()
    assert "\n" not in str(caught.value)


def test_of_many_at_once_each_takes_its_own(place: tuple[Storage, str]) -> None:
    storage, output = place
    barrier, fences = threading.Barrier(6), list[Fence]()

    def open_it() -> None:
        barrier.wait()
        fences.append(take(storage, output, {}))

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fence.epoch for fence in fences) == [1, 2, 3, 4, 5, 6]
    assert [fence.epoch for fence in fences if fence.is_open()] == [6]


@pytest.mark.parametrize("models", [2, 4])
def test_a_frozen_driver_that_was_replaced_stops(
    place: tuple[Storage, str], tmp_path: Path, models: int
) -> None:
    storage, output = place
    shards = write_shards(tmp_path / "shards", 12, 2)
    sets = ["design.models=2", f"output={output}"]
    if storage.config.endpoint_url:
        sets.append(f"storage.endpoint_url={storage.config.endpoint_url}")
    config = small_config(shards, tmp_path / "out", *sets)
    text = yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True))
    (tmp_path / "run.yaml").write_text(text)
    mark = tmp_path / "mark"
    command = [sys.executable, "-c", FROZEN, str(tmp_path / "run.yaml"), str(mark)]
    frozen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not mark.exists():
            assert frozen.poll() is None, frozen.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        design = config.design.model_copy(update={"models": models})
        summary = audit(config.model_copy(update={"design": design}), Progress(), executor="local")
        before = _contents(storage, output)
        frozen.send_signal(signal.SIGCONT)
        _, told = frozen.communicate(timeout=60)
    finally:
        frozen.kill()
    assert frozen.returncode == 1
    last = told.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "another process has opened this run since" in last
    assert "Traceback" not in told
    assert _contents(storage, output) == before
    assert summary["coverage"]["agrees"]
    table = ScoreTable(output, storage)
    assert sum(commit.rows for commit in table.commits) == summary["coverage"]["scored"]
    assert {len(row) for batch in table.batches(["cmc"]) for row in batch["cmc"].to_pylist()} == {
        models
    }


def _contents(storage: Storage, output: str) -> dict[str, bytes]:
    return {info.url: storage.read_bytes(info.url) for info in storage.list(output)}
