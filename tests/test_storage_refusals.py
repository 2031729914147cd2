"""Stores that refuse, fail or are stricter than AWS: what is said of them, and what is not done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from multimem_ray.config import StorageConfig
from multimem_ray.errors import StorageError
from multimem_ray.storage import REMOTE_BLOCK, Storage
from tests.s3 import S3Server

STRICT = Path(__file__).parents[2] / "shared" / "tools" / "strict_s3.py"
UNKNOWN = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}
ASKED: dict[str, Callable[[Storage, str], object]] = {
    "exists": lambda storage, url: storage.exists(url),
    "version": lambda storage, url: storage.version(url),
    "info": lambda storage, url: storage.info(url),
    "list": lambda storage, url: storage.list(url),
    "list one level": lambda storage, url: storage.list(url, recursive=False),
    "folders": lambda storage, url: storage.folders(url),
    "glob": lambda storage, url: storage.glob(f"{url}/*.tar"),
    "read": lambda storage, url: storage.read_bytes(url),
    "write": lambda storage, url: storage.write_atomic(url, b"1"),
    "write_if": lambda storage, url: storage.write_if(url, b"1", None),
    "remove": lambda storage, url: storage.remove(url),
    "remove all": lambda storage, url: storage.remove(url, recursive=True),
}


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The endpoint of a server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(status: int, code: str, wait_s: float = 0.0) -> Iterator[Storage]:
    """A store that gives every request the same answer."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so</Message></Error>".encode()

    class Handler(_Quiet):
        def _serve(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(wait_s)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    with _served(Handler) as endpoint:
        yield Storage(StorageConfig(endpoint_url=endpoint, retries=0, timeout_s=1))


def said(call: Callable[[], object]) -> str:
    """The one line of the StorageError that is raised."""
    with pytest.raises(StorageError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("status", UNKNOWN)
def test_what_cannot_be_told_is_an_error_and_no_absence(status: int) -> None:
    url = "s3://bucket/run/run.json"
    with answering(status, UNKNOWN[status]) as storage:
        for asked in ASKED.values():
            assert url in said(lambda asked=asked: asked(storage, url))  # type: ignore[misc]


@pytest.mark.usefixtures("s3_server")
def test_a_time_out_is_no_absence() -> None:
    with answering(404, "NoSuchKey", wait_s=2.5) as storage:
        said(lambda: storage.exists("s3://bucket/run/run.json"))
    with answering(404, "NoSuchKey") as storage:
        assert not storage.exists("s3://bucket/run/run.json")


@pytest.mark.usefixtures("s3_server")
def test_a_bucket_that_is_not_there_is_named() -> None:
    url = "s3://bucket/run"
    with answering(404, "NoSuchBucket") as storage:
        for name in ("list", "list one level", "folders", "glob", "read", "write", "write_if"):
            text = said(lambda name=name: ASKED[name](storage, url))  # type: ignore[misc]
            assert "no such bucket" in text, name


def test_without_credentials_a_listing_is_one_line(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # Another time-out, so that no client with the credentials of before is taken again.
    storage = Storage(StorageConfig(endpoint_url=s3_server.endpoint, retries=0, timeout_s=3))
    for name in ("list", "list one level", "folders", "glob", "exists", "read"):
        text = said(lambda name=name: ASKED[name](storage, "s3://bucket/run"))  # type: ignore[misc]
        assert "credentials" in text, name


def test_a_disk_that_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    storage = Storage()
    assert not storage.exists(str(tmp_path / "none" / "run.json"))
    (tmp_path / "file").write_bytes(b"1")
    assert not storage.exists(str(tmp_path / "file" / "run.json"))
    said(lambda: storage.exists(str(tmp_path / ("x" * 300))))
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    said(lambda: storage.exists(str(tmp_path / "circle")))
    if os.getuid() == 0:
        return
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    said(lambda: storage.exists(str(closed / "run.json")))


def test_a_name_is_no_pattern(place: tuple[Storage, str]) -> None:
    storage, root = place
    names = ["run1", "runs", "run", "run[1]", "run*", "run?"]
    for name in names:
        storage.write_atomic(f"{root}/{name}.json", name.encode())
        storage.write_atomic(f"{root}/{name}/a/b", name.encode())
    for gone, name in enumerate(reversed(names), start=1):
        assert storage.read_bytes(f"{root}/{name}.json") == name.encode()
        assert [info.url for info in storage.list(f"{root}/{name}")] == [f"{root}/{name}/a/b"]
        assert storage.folders(f"{root}/{name}") == ["a"]
        with storage.local_copy(f"{root}/{name}/a/b") as path:
            assert path.read_bytes() == name.encode()
        storage.remove(f"{root}/{name}.json")
        storage.remove(f"{root}/{name}", recursive=True)
        assert len(storage.list(root)) == 2 * (len(names) - gone)
    assert not storage.list(root)


def test_a_file_is_written_by_one_of_two(place: tuple[Storage, str]) -> None:
    storage, root = place
    url = f"{root}/a/epoch"
    assert storage.version(url) is None
    assert not storage.write_if(url, b"early", "no-such-version")
    assert storage.write_if(url, b"first", None)
    assert not storage.write_if(url, b"second", None)
    version = storage.version(url)
    assert storage.write_if(url, b"other", version)
    assert not storage.write_if(url, b"stale", version)
    assert storage.read_bytes(url) == b"other"
    assert [info.url for info in storage.list(root)] == [url]


def test_of_many_at_once_one_takes_a_name(place: tuple[Storage, str]) -> None:
    storage, root = place
    barrier, taken = threading.Barrier(8), []

    def take(number: int) -> None:
        barrier.wait()
        if storage.write_if(f"{root}/epoch", str(number).encode(), None):
            taken.append(str(number).encode())

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [storage.read_bytes(f"{root}/epoch")]


def test_a_store_without_conditions_still_writes_once(s3_server: S3Server) -> None:
    storage, root = s3_server.storage, s3_server.bucket()
    with _proxied(s3_server.endpoint, _refuse_conditions) as endpoint:
        other = Storage(StorageConfig(endpoint_url=endpoint, retries=0, timeout_s=10))
        assert other.write_if(f"{root}/x", b"one", None)
        assert not other.write_if(f"{root}/x", b"two", None)
        assert other.write_if(f"{root}/x", b"three", storage.version(f"{root}/x"))
    assert storage.read_bytes(f"{root}/x") == b"three"


def _refuse_conditions(handler: BaseHTTPRequestHandler) -> tuple[int, str] | None:
    conditional = any(name in handler.headers for name in ("If-None-Match", "If-Match"))
    return (501, "NotImplemented") if conditional else None


def test_a_deletion_that_finds_nothing_is_fine(s3_server: S3Server) -> None:
    storage, root = s3_server.storage, s3_server.bucket()
    for number in range(5):
        storage.write_atomic(f"{root}/a/{number}", b"1")

    def absent(handler: BaseHTTPRequestHandler) -> tuple[int, str] | None:
        # GCS says so where AWS says nothing.
        gone = handler.command == "DELETE" and not handler.path.endswith(("1", "3"))
        return (404, "NoSuchKey") if gone else None

    with _proxied(s3_server.endpoint, absent) as endpoint:
        other = Storage(StorageConfig(endpoint_url=endpoint, retries=0, timeout_s=10))
        other.remove(f"{root}/a", recursive=True)
        other.remove(f"{root}/a/0")
    left = [info.url for info in storage.list(root)]
    assert left == [f"{root}/a/{number}" for number in (0, 2, 4)]


def test_what_cannot_be_cleared_away_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with answering(403, "AccessDenied") as storage:
        storage.discard("s3://bucket/run/checkpoint", recursive=True)
    assert "s3://bucket/run/checkpoint" in caplog.text


@contextmanager
def _proxied(
    behind: str, refused: Callable[[BaseHTTPRequestHandler], tuple[int, str] | None]
) -> Iterator[str]:
    """The endpoint of a store that refuses some requests and passes the others on."""
    import http.client

    class Handler(_Quiet):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = refused(self)
            if answer is not None:
                status, code = answer
                data = f"<Error><Code>{code}</Code><Message>so</Message></Error>".encode()
                headers = {"Content-Type": "application/xml"}
            else:
                connection = http.client.HTTPConnection(urlsplit(behind).netloc, timeout=60)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                status, data, headers = response.status, response.read(), {}
                for name, value in response.getheaders():
                    if name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                        headers[name] = value
            self.send_response(status)
            length = headers.pop("Content-Length", str(len(data)))
            for name, value in {**headers, "Content-Length": length}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    with _served(Handler) as endpoint:
        yield endpoint


@pytest.mark.skipif(not STRICT.is_file(), reason="the strict store is not here")
@pytest.mark.parametrize("mode", ["checksum", "md5", "payer"])
def test_a_store_that_is_stricter_than_aws(mode: str, s3_server: S3Server, tmp_path: Path) -> None:
    root = s3_server.bucket()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    behind = s3_server.endpoint.rpartition(":")[2]
    command = [sys.executable, str(STRICT), behind, port, mode]
    server = subprocess.Popen(command, cwd=tmp_path)
    try:
        _await_port(int(port))
        settings = {"requester_pays": True} if mode == "payer" else {}
        endpoint = f"http://127.0.0.1:{port}"
        config = StorageConfig(endpoint_url=endpoint, retries=0, timeout_s=20, **settings)
        _use(Storage(config), root)
        if mode == "payer":
            refused = Storage(StorageConfig(endpoint_url=endpoint, retries=0, timeout_s=20))
            assert "access denied" in said(lambda: refused.list(root))
    finally:
        server.terminate()
        server.wait(timeout=10)
    assert s3_server.storage.list(root) == []


def _await_port(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            return


def _use(storage: Storage, root: str) -> None:
    """Every method of a storage."""
    storage.write_atomic(f"{root}/x", b"1")
    assert storage.write_if(f"{root}/y/1", b"1", None)
    assert storage.write_if(f"{root}/y/1", b"2", storage.version(f"{root}/y/1"))
    assert not storage.write_if(f"{root}/y/1", b"2!", None)
    with storage.create(f"{root}/z/big") as stream:
        for _ in range(3):
            stream.write(b"x" * REMOTE_BLOCK)
    assert storage.exists(f"{root}/x")
    assert not storage.exists(f"{root}/none")
    assert storage.info(f"{root}/z/big").size == 3 * REMOTE_BLOCK
    with storage.open(f"{root}/z/big") as source:
        assert len(source.read()) == 3 * REMOTE_BLOCK
    with storage.local_copy(f"{root}/y/1") as path:
        assert path.read_bytes() == b"2"
    assert [storage.name(info.url) for info in storage.list(root)] == ["x", "1", "big"]
    assert storage.folders(root) == ["y", "z"]
    assert [storage.name(info.url) for info in storage.glob(f"{root}/*/b*")] == ["big"]
    storage.remove(f"{root}/x")
    storage.remove(f"{root}/y", recursive=True)
    storage.discard(f"{root}/z", recursive=True)
