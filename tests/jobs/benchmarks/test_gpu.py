"""The kit for a GPU machine runs on a CPU too, without Ray, and its rows are what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.benchmarks import gpu
from jobs.benchmarks.device_watch import DeviceWatch

ROOT = Path(__file__).resolve().parents[3]


def test_the_smallest_form_measures_all_parts_without_ray(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from jobs.benchmarks import runner\n"
        "sys.argv += ['--quick', '--json', sys.argv.pop(1), '--parts', 'limits', 'model', 'step',"
        " 'feed', 'score', 'train']\n"
        "runner.main('gpu')"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(output)],
        cwd=ROOT,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    rows = json.loads(output.read_text("utf-8"))["benchmarks"]["gpu"]["figures"]
    assert not [row for row, columns in rows.items() if "failed" in columns]
    assert rows["scores of CPU and device"]["largest difference"]["median"] < 1e-5
    assert rows["checkpoint, M = 2"]["GB"]["median"] > 0
    assert rows["training, M = 2, bf16"]["by the plain loop, from the cache"]["median"] > 0
    assert rows["scoring, M = 2, bf16"]["by the models alone"]["median"] > 0


def test_a_part_that_fails_does_not_take_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: gpu.Kit) -> None:
        raise ValueError("no such card")

    parts = {"limits": broken, "feed": lambda kit: kit.tell("a", {"b": 1.0})}
    monkeypatch.setattr(gpu, "_PARTS", parts)
    options = gpu.Options(samples=8, picture=16, preset="small", parts=("limits", "feed"))
    rows = gpu.measure(options, tmp_path).rows
    assert rows["part limits"]["failed"] == [1.0]
    assert rows["a"] == {"b": [1.0]}


def test_who_works_is_seen_and_who_waits_is_not() -> None:
    with DeviceWatch() as watch:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            sum(range(1000))
    places = watch.places()
    assert any("test_who_works" in place for place in places)
    assert max(places.values()) > 0.5
