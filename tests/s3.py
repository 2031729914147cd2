"""A private S3 server on this machine (moto, as a process), for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from multimem_ray.config import StorageConfig
from multimem_ray.storage import Storage

START_S = 60


@dataclass(frozen=True)
class S3Server:
    """Where the server listens, and a fresh bucket for each test."""

    endpoint: str

    @property
    def config(self) -> StorageConfig:
        return StorageConfig(endpoint_url=self.endpoint, retries=1, timeout_s=10)

    @property
    def storage(self) -> Storage:
        return Storage(self.config)

    def bucket(self) -> str:
        """``s3://…`` of a new empty bucket."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server, with dummy credentials in the environment of this process."""
    with running_server() as server:
        yield server


@contextmanager
def running_server() -> Iterator[S3Server]:
    """The same, outside of tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        try:
            _wait(server, endpoint)
            yield S3Server(endpoint)
        finally:
            server.terminate()
            server.wait(timeout=10)


def _wait(server: subprocess.Popen[bytes], endpoint: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.poll() is not None:
            pytest.fail("the S3 server did not start; is moto[server] installed?")
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the S3 server did not answer within {START_S} s")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    """A storage and an empty folder in it."""
    if request.param == "disk":
        return Storage(), str(tmp_path)
    server: S3Server = request.getfixturevalue("s3_server")
    return server.storage, server.bucket()
