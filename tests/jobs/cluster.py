"""A Ray head of one's own for tests of submitted jobs, with token authentication."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
START_S = 90


@dataclass(frozen=True)
class Head:
    """A running head.

    Args:
        dashboard: URL that jobs are submitted to.
        metrics: URL that Prometheus would read.
        env: Environment of a client that has the token.
    """

    dashboard: str
    metrics: str
    env: Mapping[str, str]
    ready_by: float = field(default_factory=lambda: time.monotonic() + START_S)

    def ray(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run Ray's command line against this head."""
        return subprocess.run(
            [*RAY, *arguments],
            env=dict(self.env),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def submit(self, job_id: str, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """``ray job submit`` of an entry point, waiting for its end."""
        where = ["--working-dir", str(ROOT), "--submission-id", job_id]
        while True:
            done = self.ray("job", "submit", *where, "--", *entrypoint)
            # The agent that starts jobs comes up seconds after the head.
            if "No available agent" not in done.stderr or time.monotonic() > self.ready_by:
                return done
            time.sleep(1)

    def status(self, job_id: str) -> str:
        """What Ray says of a job."""
        said = self.ray("job", "status", "--log-color=false", job_id)
        return said.stdout + said.stderr

    def log(self, job_id: str) -> str:
        """What a job wrote."""
        return self.ray("job", "logs", "--log-color=false", job_id).stdout


@contextlib.contextmanager
def own_head(folder: Path) -> Iterator[Head]:
    """Start a head on free ports of this machine; end what was started, and nothing else.

    Args:
        folder: A short path for Ray's files: its sockets lie below.
    """
    token = folder / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    gcs, dashboard, agent, metrics = _free_ports(4)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "PYTHONPATH": str(ROOT),
        # A job's entry point says `python`: it must be the one that has the project.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        *(*RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        f"--metrics-export-port={metrics}",
        *(f"--temp-dir={folder}", "--num-cpus=2"),
        *("--disable-usage-stats", "--object-store-memory=300000000"),
    ]
    with (folder / "start.log").open("w") as log:
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        read = f"http://127.0.0.1:{metrics}/metrics"
        head = Head(url, read, env | {"RAY_API_SERVER_ADDRESS": url})
        _wait(head, process, folder / "start.log")
        yield head
    finally:
        _end(process)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if head.ray("job", "list").returncode == 0:
            return
        time.sleep(1)
    raise RuntimeError(f"the head did not start: {log.read_text('utf-8')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process that was started and what descends from it."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()
    process.wait()
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=10)
