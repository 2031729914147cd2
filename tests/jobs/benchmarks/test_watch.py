"""What a command and its children use is seen from outside."""

from __future__ import annotations

import sys

import pytest

from jobs.benchmarks.watch import Watched, call_watched, watch

BUSY = """
import subprocess, sys, time
code = "kept = bytearray(80_000_000); import time; time.sleep(2)"
child = subprocess.Popen([sys.executable, "-c", code])
end = time.process_time() + 0.5
while time.process_time() < end: pass
child.wait()
"""


def test_time_and_memory_of_all_processes() -> None:
    watched = watch([sys.executable, "-c", BUSY], look_every_s=0.05, looks_per_memory=2)
    assert watched.wall_s > 2
    assert watched.cpu[-1][1] >= 0.4
    assert watched.peak > 80_000_000
    assert max(watched.peaks.values()) > 80_000_000


def test_a_call_returns_its_result() -> None:
    watched = call_watched("os.path:join", "a", "b", look_every_s=0.05)
    assert watched.result == "a/b"
    assert watched.wall_s > 0


def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"])


def test_cpu_is_interpolated_between_looks() -> None:
    watched = Watched(cpu=[(10.0, 0.0), (12.0, 4.0), (14.0, 4.0)])
    assert watched.cpu_between(11.0, 13.0) == 2.0
