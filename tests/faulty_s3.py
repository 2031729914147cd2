"""A store that is not well: passes requests on to another, and spoils some of them.

Of a given share of requests, one third is answered with 500 or 503, one third is cut in the middle
of the answer, and one third is late.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


class FaultyStore(ThreadingHTTPServer):
    """The proxy; ``spoiled`` counts what was done to requests.

    Args:
        endpoint: The store behind it.
        share: Of requests that are spoiled.
        late_s: Seconds that a late answer takes longer.
    """

    daemon_threads = True

    def __init__(self, endpoint: str, share: float, late_s: float, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(endpoint).netloc
        self.share, self.late_s = share, late_s
        self.spoiled: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fate(self) -> str:
        """What happens to the next request."""
        with self._lock:
            bad = self._random.random() < self.share
            found = self._random.choice(["500", "503", "cut", "late"]) if bad else "well"
            self.spoiled[found] += 1
            return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyStore

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fate = self.server.fate()
        if fate in {"500", "503"}:
            self._answer(int(fate), {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        if fate == "late":
            time.sleep(self.server.late_s)
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        headers["Content-Length"] = length or "0"
        self._answer(answer.status, headers, data, cut=fate == "cut")
        connection.close()

    def _answer(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@contextmanager
def faulty(endpoint: str, share: float, late_s: float, seed: int = 0) -> Iterator[FaultyStore]:
    """The proxy while the block runs."""
    store = FaultyStore(endpoint, share, late_s, seed)
    thread = threading.Thread(target=store.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()
        thread.join()
