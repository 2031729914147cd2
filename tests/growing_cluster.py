"""A Ray cluster on this machine that grows and shrinks: a head that takes no work, and nodes with
simulated GPUs that its autoscaler starts when somebody asks for them.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.nodes import ENV, ROOT

GPU_NODE = {"CPU": 1, "GPU": 1, "object_store_memory": 150_000_000}
START_S = 90
_HEAD_ID = "f" * 51 + "00000"


@dataclass
class GrowingCluster:
    """The running cluster.

    Args:
        process: Its head.
        address: Of the head.
        most: Nodes with workers there were at a time; kept by :meth:`workers`.
    """

    process: subprocess.Popen[bytes]
    address: str
    most: int = 0
    everybody: set[psutil.Process] = field(default_factory=set)

    def workers(self) -> list[psutil.Process]:
        """The raylets of the worker nodes that run now, the oldest first."""
        self.everybody.update(psutil.Process(self.process.pid).children(recursive=True))
        found = []
        for process in self.everybody:
            with contextlib.suppress(psutil.Error):
                if process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE:
                    parent = process.parent()
                    # Not one that is about to become a worker.
                    if parent is None or parent.name() != "raylet":
                        found.append(process)
        found.sort(key=psutil.Process.create_time)
        self.most = max(self.most, len(found) - 1)
        return found[1:]

    def kill_node(self) -> None:
        """Kill -9 the oldest worker node with all of its processes."""
        raylet = self.workers()[0]
        for process in [raylet, *raylet.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def shrinks(self, seconds: float) -> bool:
        """Whether only the head is left before the time is over."""
        end = time.monotonic() + seconds
        while self.workers():
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


@contextlib.contextmanager
def growing_cluster(most: int) -> Iterator[GrowingCluster]:
    """Start the head; end it and whatever it started, and nothing else.

    Args:
        most: Worker nodes that there may be; for a moment the autoscaler can start one more.
    """
    # Ray's sockets lie below: a short path.
    with tempfile.TemporaryDirectory(prefix="grow-") as folder:
        yield from _grown(Path(folder), most)


def _grown(folder: Path, most: int) -> Iterator[GrowingCluster]:
    port = _free_port()
    address = f"{_own_ip()}:{port}"
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_autoscaler(address, most)))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", "--num-cpus=0", "--num-gpus=0", "--include-dashboard=false"),
        *(f"--autoscaling-config={config}", "--object-store-memory=150000000"),
        *("--dashboard-agent-listen-port=0", "--disable-usage-stats"),
        f"--temp-dir={folder}",
    ]
    env = ENV | {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
    }
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    cluster = GrowingCluster(process, address)
    try:
        _wait(cluster, folder / "start.log")
        yield cluster
    finally:
        _end(cluster)


def _autoscaler(address: str, most: int) -> dict[str, Any]:
    return {
        "cluster_name": "growing",
        "max_workers": most,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 10,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {
                "resources": {"CPU": 0},
                "node_config": {},
                "max_workers": 0,
            },
            "gpu": {
                "resources": GPU_NODE,
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in ("cluster_synced_files", "file_mounts_sync_exclude")},
        **{
            f"{who}{what}": []
            for who in ("", "head_", "worker_")
            for what in ("setup_commands", "start_ray_commands")
            if (who, what) != ("", "start_ray_commands")
        },
        "initialization_commands": [],
    }


def _own_ip() -> str:
    """The address under which Ray's nodes on this machine know it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        with contextlib.suppress(OSError):
            one.connect(("8.8.8.8", 80))  # nothing is sent
        ip: str = one.getsockname()[0]
    return ip if ip != "0.0.0.0" else "127.0.0.1"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        port: int = one.getsockname()[1]
    return port


def _wait(cluster: GrowingCluster, log: Path) -> None:
    """Until the head answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and cluster.process.poll() is None:
        done = subprocess.run(
            [sys.executable, "-c", f"import ray; ray.init(address={cluster.address!r})"],
            cwd=ROOT,
            env=ENV,
            capture_output=True,
            timeout=START_S,
            check=False,
        )
        if done.returncode == 0:
            return
    raise RuntimeError(f"the head did not start: {log.read_text('utf-8')[-2000:]}")


def _end(cluster: GrowingCluster) -> None:
    """End the head, and the nodes that its autoscaler started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        cluster.workers()
    for process in [cluster.process, *cluster.everybody]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.process.wait()
    psutil.wait_procs(cluster.everybody, timeout=10)
