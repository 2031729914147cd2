"""A few disturbed runs; ``make chaos N=100`` does many."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whatever_happens_every_sample_is_scored_once_and_alike() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--runs", "8", "--first", "1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 runs are as they must be" in done.stdout
