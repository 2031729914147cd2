"""A run whose samples lie in real shards, some of them hostile, and a visitor of its page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import TestServer
from yarl import URL

from multimem_ray.storage import Storage
from multimem_ray.view.serve import open_view
from multimem_ray.view.server import View, application
from tests.report import fake_shards as fake
from tests.results.fake_run import FakeRun, fake_run

MODALITIES = ("audio", "image", "text", "video")
TOKEN = "the-token-of-this-test"
RUNS = "document['title']='ran-'+'code'"  # without a dot, where a key would end
SCRIPT_KEY = f"x'\"><script>{RUNS}<-script>"
IMAGE_KEY = f"<img src=x onerror={RUNS}>"
HOSTILE_KEYS = (SCRIPT_KEY, IMAGE_KEY, "=cmd()", "{{7*7}}", "j\u202eavas")


def write_run(folder: Path, shards: int = 2, rows: int = 40) -> FakeRun:
    """Samples with picture, sound, film and caption; keys and captions of the first are hostile."""
    names, keys = [], []
    for number in range(shards):
        own = [f"{number}_{i:03d}" for i in range(rows)]
        if number == 0:
            own[: len(HOSTILE_KEYS)] = HOSTILE_KEYS
        samples = {}
        for place, key in enumerate(own):
            samples[key] = fake.members(place, video=place % 8 == 0)
            if key in HOSTILE_KEYS:
                samples[key]["txt"] = f"{fake.HOSTILE} {place}".encode()
        names.append(fake.write_shard(folder / f"set-{number:05d}.tar", samples))
        keys.append(own)
    return fake_run(
        folder, shard_names=names, keys=keys, modalities=MODALITIES, planted=0.2, undefined=3
    )


class Visitor:
    """Asks the server of a view, with the token's cookie unless told otherwise."""

    def __init__(self, view: View) -> None:
        self.view = view

    def get(self, path: str, **options: Any) -> Answer:
        """Answer to a GET."""
        return self.ask("GET", path, **options)

    def pick(self, *samples: tuple[str, str], picked: bool = True, **options: Any) -> Answer:
        """Tick or untick samples, as the page does."""
        form = [part for s, k in samples for part in (("shard", s), ("key", k))]
        data = [*form, *([("picked", "on")] if picked else [])]
        return self.ask(
            "POST", "/pick", data=data, **{"headers": {"HX-Request": "true"}, **options}
        )

    def ask(self, method: str, path: str, *, cookie: bool = True, **options: Any) -> Answer:
        """Answer to any request, not redirected."""
        return asyncio.run(self._ask(method, path, cookie, options))

    async def _ask(
        self, method: str, path: str, cookie: bool, options: Mapping[str, Any]
    ) -> Answer:
        server = TestServer(application(self.view, TOKEN), host="127.0.0.1")
        async with server, ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            if cookie:
                session.cookie_jar.update_cookies(
                    {f"multimem_{server.port}": TOKEN}, URL(f"http://127.0.0.1:{server.port}/")
                )
            given = dict(options)
            headers = {k: v.format(port=server.port) for k, v in given.pop("headers", {}).items()}
            url = f"http://127.0.0.1:{server.port}{path}"
            async with session.request(
                method, url, allow_redirects=False, headers=headers, **given
            ) as answer:
                return Answer(answer.status, dict(answer.headers), await answer.text())


class Answer:
    """Status, headers and text."""

    def __init__(self, status: int, headers: Mapping[str, str], text: str) -> None:
        self.status, self.headers, self.text = status, headers, text


@contextmanager
def visited(run: str, **options: Any) -> Iterator[Visitor]:
    """A visitor of a run's page."""
    with open_view(run, Storage(), **options) as view:
        yield Visitor(view)
