"""A call in a process of its own, and all of its processes watched from outside."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
LOOK_EVERY_S = 0.5
# To count a process's own pages takes milliseconds: often, it would slow down whoever has more
# processes.
LOOKS_PER_MEMORY = 10


@dataclass
class Watched:
    """What a command used.

    Attributes:
        result: What the call returned, by way of JSON.
        wall_s: Seconds from its start to its end.
        peak: Most memory (USS) of all processes together, bytes.
        peaks: Most memory of a single process, by its title, bytes.
        cpu: (time, CPU seconds used so far by all processes), ascending.
    """

    result: Any = None
    wall_s: float = 0.0
    peak: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def cpu_between(self, start: float, end: float) -> float:
        """CPU seconds used between two times, interpolated between looks."""
        times, seconds = zip(*self.cpu, strict=True)
        return float(np.interp(end, times, seconds) - np.interp(start, times, seconds))


def call_watched(function: str, *arguments: Any, **looks: Any) -> Watched:
    """Call ``module:function`` in a process of its own.

    Args:
        function: Where it is.
        arguments: Whatever JSON can hold; so is its result.
        looks: See :func:`watch`.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        call = [sys.executable, "-m", __name__, function, json.dumps(arguments), str(result)]
        watched = watch(call, **looks)
        watched.result = json.loads(result.read_text("utf-8"))
    return watched


def watch(
    command: Sequence[str],
    *,
    look_every_s: float = LOOK_EVERY_S,
    looks_per_memory: int = LOOKS_PER_MEMORY,
) -> Watched:
    """Run a command of the project to its end.

    Args:
        command: With its arguments.
        look_every_s: Seconds between looks at the CPU time.
        looks_per_memory: Looks at the CPU time for each at the memory.

    Raises:
        RuntimeError: It failed.
    """
    watched, used = Watched(), dict[int, float]()
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - the callers name themselves
    while process.poll() is None:
        family = _family(process.pid)
        watched.cpu.append((time.time(), _cpu(family, used)))
        if len(watched.cpu) % looks_per_memory == 0:
            _memory(family, watched)
        time.sleep(look_every_s)
    watched.wall_s = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode}")
    return watched


def _family(pid: int) -> list[psutil.Process]:
    """A process and its children, and theirs."""
    try:
        main = psutil.Process(pid)
        return [main, *main.children(recursive=True)]
    except psutil.Error:
        return []


def _cpu(processes: Sequence[psutil.Process], used: dict[int, float]) -> float:
    """CPU seconds used so far, of processes that ended too; ``used`` is brought up to date."""
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            used[process.pid] = times.user + times.system
    return sum(used.values())


def _memory(processes: Sequence[psutil.Process], watched: Watched) -> None:
    """Memory that would be free without these processes: of each, and of all."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            own, title = process.memory_full_info().uss, _title(process)
            total += own
            watched.peaks[title] = max(own, watched.peaks.get(title, 0))
    watched.peak = max(watched.peak, total)


def _title(process: psutil.Process) -> str:
    """The first word of its command line, which Ray's workers set to what they do."""
    first = (process.cmdline() or [process.name()])[0]
    return first.split("(")[0] if first.startswith("ray::") else Path(first).name


def _call(function: str, arguments: str, result: str) -> None:
    module, name = function.split(":")
    value = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    Path(result).write_text(json.dumps(value), encoding="utf-8")


if __name__ == "__main__":
    _call(*sys.argv[1:])
