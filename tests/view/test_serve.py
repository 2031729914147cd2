"""The command as a process: Ctrl-C is its normal end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.results.fake_run import fake_run


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    run = fake_run(tmp_path, shards=1, rows=20)
    command = [sys.executable, "-m", "multimem_ray", "view", run.output]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as view:
        try:
            assert view.stdout is not None
            assert view.stderr is not None
            assert view.stdout.readline().startswith("picked samples")
            assert view.stdout.readline().startswith("open http://127.0.0.1:")
            # Sooner, and it is still on its way to where it waits.
            assert view.stderr.readline() == "stop with Ctrl-C\n"
            view.send_signal(signal.SIGINT)
            _, said = view.communicate(timeout=60)
        finally:
            view.kill()
    assert view.returncode == 0
    assert said == ""
