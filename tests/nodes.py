"""Three Ray nodes on this machine, of which any process may be killed: a head that takes no work,
and two workers. They live in a process of their own, so that nothing of them outlasts a test.

    python -m tests.nodes

reads a line at a time (``kill`` a worker node and add another one, ``quit``) and answers each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
ENV = {
    **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
    "PYTHONPATH": str(ROOT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
}
CORES = 2


@dataclass
class Nodes:
    """The running nodes.

    Args:
        process: Who holds them.
        address: Of the head.
    """

    process: subprocess.Popen[str]
    address: str

    def ask(self, line: str) -> str:
        """Send a command; returns the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill_node(self) -> None:
        """Kill -9 a worker node with all of its processes; another one comes in its place."""
        assert self.ask("kill") == "killed"

    def workers(self, *names: str) -> list[psutil.Process]:
        """Ray's worker processes whose title has one of these words, as ``ray::Title``."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and any(name in title for name in names):
                    found.append(process)
        return found

    def kill_worker(self, driver: subprocess.Popen[bytes], *names: str) -> bool:
        """Kill -9 a worker with such a title; False if none came before the driver ended."""

        def there() -> Iterator[bool]:
            while True:
                yield bool(self.workers(*names))

        if not wait_for(there(), driver, 60):
            return False
        alive = self.workers(*names)
        if not alive:
            return False
        alive[0].kill()
        return True


@contextmanager
def three_nodes() -> Iterator[Nodes]:
    """Start the nodes; end them, and nothing else."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.nodes"],
        cwd=ROOT,
        env=ENV,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("the nodes did not start")
        yield Nodes(process, address)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)


def drive(command: str, config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start ``multimem COMMAND CONFIG`` as a driver."""
    code = "from multimem_ray.cli import main; main()"
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-c", code, command, str(config)],
            cwd=ROOT,
            env=ENV,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(ready: Iterator[bool], driver: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether something came true before the driver ended and the time was over."""
    end = time.monotonic() + seconds
    while not next(ready):
        if driver.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _serve() -> None:
    from ray.cluster_utils import Cluster

    settings: dict[str, Any] = {"num_cpus": CORES, "object_store_memory": 150_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={**settings, "num_cpus": 0, "include_dashboard": False}
    )
    nodes = [cluster.add_node(**settings) for _ in range(2)]
    cluster.wait_for_nodes()
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        cluster.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(cluster.add_node(**settings))
        sys.stdout.write("killed\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
