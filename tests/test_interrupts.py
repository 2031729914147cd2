"""Ctrl-C and SIGTERM, as a terminal, Slurm or Kubernetes send them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from multimem_ray import interrupts
from multimem_ray.setup import apply_overrides
from tests.small import small_raw, write_shards

ROOT = Path(__file__).parents[1]
WAITING = """
import signal, sys, time
# Whoever runs this in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from multimem_ray.interrupts import Stopped, deferred, handle_signals, status
handle_signals()
def ready(): print("ready", flush=True)
{body}
"""


def _start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _waiting(body: str) -> subprocess.Popen[str]:
    process = _start("-c", WAITING.format(body=body))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 200
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the moment never came"
        time.sleep(0.02)


def test_the_first_signal_is_raised_and_the_second_ends_at_once() -> None:
    told = "print('told', flush=True); time.sleep(60)"
    body = f"try:\n    ready(); time.sleep(60)\nexcept Stopped:\n    {told}"
    process = _waiting(body)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "told\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert process.stderr is not None
    assert "stopping: what is done is kept" in process.stderr.read()


def test_a_deferred_signal_is_raised_after_the_block() -> None:
    body = (
        "try:\n    with deferred():\n        ready()\n"
        "        while status() is None: time.sleep(0.01)\n"
        "        print('kept', status())\nexcept Stopped:\n    print('told'); sys.exit(status())"
    )
    process = _waiting(body)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == "kept 143\ntold\n"
    assert process.returncode == 143


def test_what_does_not_unwind_is_left() -> None:
    body = (
        "from multimem_ray import interrupts\ninterrupts.LIMIT_S = 0.3\n"
        "try:\n    ready(); time.sleep(60)\nexcept Stopped:\n    time.sleep(60)"
    )
    process = _waiting(body)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143


def test_a_signal_that_is_ignored_stays_so_and_without_handlers_nothing_is_deferred() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN), signal.getsignal(signal.SIGINT)
    try:
        interrupts.handle_signals()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        raise KeyboardInterrupt


def _audit(folder: Path, *sets: str) -> tuple[list[str], Path]:
    raw = apply_overrides(small_raw(write_shards(folder / "shards"), folder / "out"), sets)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(raw))
    return ["-m", "multimem_ray", "train", str(path)], folder / "out"


def test_training_in_one_process_leaves_a_checkpoint(tmp_path: Path) -> None:
    command, output = _audit(tmp_path, "training.epochs=100000")
    process = _start(*command, "--local")
    _until(lambda: len(list(output.glob("models/*/checkpoint.safetensors"))) == 2, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "stopping: what is done is kept" in told
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_on_ray_leaves_checkpoints_and_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    command, output = _audit(tmp_path, "training.epochs=100000")
    process = _start(*command)
    _until(lambda: any(output.glob("models/*/checkpoint.safetensors")), process)
    family = psutil.Process(process.pid).children(recursive=True)
    if number == signal.SIGINT:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            pytest.skip("whoever runs this has interrupts ignored")
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    started = time.monotonic()
    _, told = process.communicate(timeout=30)
    assert time.monotonic() - started < 12
    assert process.returncode == 128 + number
    assert "stopping: what is done is kept" in told
    assert "***" not in told
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
