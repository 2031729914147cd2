"""Kills what a test started, and only that, while it works."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil


@contextlib.contextmanager
def killed_once(exists: Path, most: int | None = None) -> Iterator[list[int]]:
    """Kill Ray Train workers of this process as soon as a file is there; gives their ids.

    Args:
        exists: The file, such as a checkpoint.
        most: How many workers are killed; default all.
    """
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not killed and not over.is_set():
            if exists.exists():
                for process in trainers()[:most]:
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
    assert killed, "training was over before anything was killed"


def trainers() -> list[psutil.Process]:
    """Workers of Ray Train that this very process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
