"""What a command and its children use is seen from outside."""

from __future__ import annotations

import sys

import pytest

from jobs import watch as module
from jobs.watch import Watched, watch

BUSY = """
import subprocess, sys, time
code = "kept = bytearray(80_000_000); import time; time.sleep(2)"
child = subprocess.Popen([sys.executable, "-c", code])
end = time.process_time() + 0.5
while time.process_time() < end: pass
child.wait()
"""


def test_time_and_memory_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(module, "LOOKS_PER_MEMORY", 2)
    found = watch([sys.executable, "-c", BUSY])
    assert found.wall_s > 2
    assert found.cpu[-1][1] >= 0.4
    assert found.peak > 80_000_000
    assert max(found.peaks.values()) > 80_000_000


def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="ended with status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"])


def test_cpu_is_interpolated_between_looks() -> None:
    watched = Watched(cpu=[(10.0, 0.0), (12.0, 4.0), (14.0, 4.0)])
    assert watched.cpu_between(11.0, 13.0) == 2.0
