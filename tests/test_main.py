"""``python -m multimem_ray`` is the command ``multimem``."""

from __future__ import annotations

import subprocess
import sys


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multimem_ray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_module_is_the_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0, shown.stderr
    assert "Find the samples a multi-modal model memorized." in shown.stdout


def test_its_errors_are_one_line_and_a_status() -> None:
    refused = run("status", "/nowhere/at/all")
    assert refused.returncode == 1, refused.stderr
    assert refused.stderr.startswith("error: ")
    assert "/nowhere/at/all" in refused.stderr
    assert "Traceback" not in refused.stderr
