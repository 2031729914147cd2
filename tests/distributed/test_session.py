"""Starting Ray: quiet when it works, one line when it does not, three chances."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from multimem_ray.distributed import session
from multimem_ray.errors import ClusterError


def test_native_chatter_is_kept_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: os.write(2, b"native chatter\n"))
    session.start_local()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize(
    ("cause", "way"),
    [
        (RuntimeError("no port\nmore"), "--local"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), "RAY_TMPDIR=/tmp"),
        (PermissionError(13, "Permission denied", "/root/ray"), "RAY_TMPDIR"),
        (ValueError("the object store does not fit into /dev/shm"), "MiB in /dev/shm"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line_and_its_own_words_are_kept(
    cause: Exception,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(**_: Any) -> None:
        os.write(2, b"the reason\n")
        raise cause

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ClusterError, match="Ray does not start on this machine") as caught:
        session.start_local()
    assert way in str(caught.value)
    assert "\n" not in str(caught.value)
    (log,) = tmp_path.glob("multimem-ray-*.log")
    assert str(log) in str(caught.value)
    assert log.read_text() == "the reason\n"
    assert capfd.readouterr().err == ""


def test_an_address_with_nobody_behind_it_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests began
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        started = time.monotonic()
        with (
            pytest.raises(ClusterError, match="no Ray answers there"),
            session.ray_session(f"127.0.0.1:{port}"),
        ):
            pass
    assert time.monotonic() - started < 15


def test_a_slow_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def slow(**settings: Any) -> None:
        tries.append(settings)
        if len(tries) < 3:
            raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    session.start_local(num_cpus=1)
    assert len(tries) == 3
    assert all(settings["num_cpus"] == 1 for settings in tries)


def test_a_private_ray_listens_on_this_machine_alone(ray_session: Any) -> None:
    @ray_session.remote
    def work() -> int:
        return 1

    assert ray_session.get(work.remote()) == 1
    here = psutil.Process()
    listening = [
        (process.name(), connection.laddr)
        for process in (here, *here.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    reached = [(name, at) for name, at in listening if not at.ip.endswith("127.0.0.1")]
    assert not [one for one in reached if one[1].ip != "::1"]
    # A cluster can be joined from here all the same.
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") is None
    from ray._private import ray_constants

    assert ray_constants.ENABLE_RAY_CLUSTER
