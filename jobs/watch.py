"""A command and all of its processes, watched from outside: wall time, CPU time and memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
LOOK_EVERY_S = 0.5
# To count a process's own pages takes milliseconds: often, it would slow down whoever has more
# processes.
LOOKS_PER_MEMORY = 10


@dataclass
class Watched:
    """What a command used.

    Attributes:
        wall_s: Seconds from its start to its end.
        load_before: Load average of the machine when it was started.
        peak: Most memory (USS) of all processes together, bytes.
        peaks: Most memory of a single process, by its title, bytes.
        cpu: (time, CPU seconds used so far by all processes), ascending.
    """

    wall_s: float = 0.0
    load_before: float = 0.0
    peak: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def cpu_between(self, start: float, end: float) -> float:
        """CPU seconds used between two times, interpolated between looks."""
        times, seconds = zip(*self.cpu, strict=True)
        return float(np.interp(end, times, seconds) - np.interp(start, times, seconds))


def watch(command: Sequence[str], looks_per_memory: int = LOOKS_PER_MEMORY) -> Watched:
    """Run a command of the project to its end.

    Args:
        looks_per_memory: Looks at the CPU time for each at the memory.

    Raises:
        RuntimeError: It failed.
    """
    found = Watched(load_before=os.getloadavg()[0])
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - the callers name themselves
    used: dict[int, float] = {}
    while process.poll() is None:
        there = _family(process.pid)
        found.cpu.append((time.time(), _cpu(there, used)))
        if len(found.cpu) % looks_per_memory == 0:
            _memory(there, found)
        time.sleep(LOOK_EVERY_S)
    found.wall_s = time.monotonic() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode}")
    return found


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


def _memory(processes: Sequence[psutil.Process], found: Watched) -> None:
    """Memory that would be free without these processes: of each, and of all."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            own, title = process.memory_full_info().uss, _title(process)
            total += own
            found.peaks[title] = max(own, found.peaks.get(title, 0))
    found.peak = max(found.peak, total)


def _title(process: psutil.Process) -> str:
    """The first word of its command line, which Ray's workers set to what they do."""
    first = (process.cmdline() or [process.name()])[0]
    return first.split("(")[0] if first.startswith("ray::") else Path(first).name
