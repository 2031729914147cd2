"""The server behind ``multimem view``: pages of rows, single samples, and what was picked."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import urlencode

import jinja2
from aiohttp import web
from aiohttp.typedefs import Handler

from multimem_ray.errors import ConfigError, MultiMemError
from multimem_ray.foreign_text import line, visible
from multimem_ray.report import svg, text
from multimem_ray.report.page import colour
from multimem_ray.report.why import doubt, misfit_words, standing
from multimem_ray.results.table import ScoreTable
from multimem_ray.store.schema import ATTRIBUTION, PAIR, UNSEEN
from multimem_ray.view.guard import add_headers, guarded
from multimem_ray.view.query import Question, place_of, score_columns
from multimem_ray.view.rows import Row, Rows
from multimem_ray.view.selection import Selection
from multimem_ray.view.shards import LARGE, Shards

T = TypeVar("T")

STATIC = {
    "htmx.min.js": ("multimem_ray.view", "static/htmx.min.js", "text/javascript"),
    "view.js": ("multimem_ray.view", "static/view.js", "text/javascript"),
    "view.css": ("multimem_ray.view", "static/view.css", "text/css"),
    "page.css": ("multimem_ray.report", "page.css", "text/css"),
}
MOST_BODY = 1 << 20
SAME_GROUP = 12
LABELS = 200


@dataclass
class View:
    """What the handlers share.

    Attributes:
        table: The scores.
        rows: Their pages.
        shards: Contents of samples.
        selection: What is picked; ``rows`` has it as a table.
        run: ``run.json``.
    """

    table: ScoreTable
    rows: Rows
    shards: Shards
    selection: Selection
    run: Mapping[str, Any]
    changes: int = 0

    @functools.cached_property
    def pages(self) -> jinja2.Environment:
        """The templates; everything that came out of a shard passes through their escaping."""
        made = jinja2.Environment(
            loader=jinja2.PackageLoader("multimem_ray.view", "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        made.globals |= {
            "w": text,
            "line": line,
            "visible": visible,
            "colour": colour,
            "waveform": svg.waveform,
            "modalities": self.table.modalities,
            "columns": score_columns(self.table),
            "named": lambda names: [(name, name) for name in names],
            "labels": self._labels,
            "grouped": "group" in self.table.columns,
            "title": (self.run.get("config") or {}).get("output") or self.table.output,
            "selection": self.selection,
            "ranks_by": self.table.verdict.ranks_by,
        }
        return made

    @property
    def _labels(self) -> list[str]:
        """Labels that a visitor may choose from; any other may be written."""
        known = self.table.document("summary.json").get("labels") or {}
        return [str(row["group"]) for row in known.get("groups") or []][:LABELS]

    def listing(self, form: Mapping[str, str]) -> dict[str, Any]:
        """What the list of rows shows."""
        asked = Question.read(form, self.table)
        rows, before, behind = self.rows.page(asked)
        kept = {k: v for k, v in form.items() if v and k not in {"after", "before"}}
        made = {"rows": [self._row(row, asked.by) for row in rows], "form": form, "by": asked.by}
        turns = {"newer": "", "older": "", "first": f"/?{urlencode(kept)}"}
        if rows and before:
            turns["newer"] = f"/?{urlencode({**kept, 'before': place_of(rows[0], asked.by)})}"
        if rows and behind:
            turns["older"] = f"/?{urlencode({**kept, 'after': place_of(rows[-1], asked.by)})}"
        return {**made, **turns, "down": asked.down, "query": urlencode(kept)}

    def count(self, form: Mapping[str, str]) -> int:
        """How many samples a question lists."""
        asked = replace(Question.read(form, self.table), after=None, before=None)
        return self.rows.count(asked, self.changes if asked.picked else 0)

    def sample(self, shard: str, key: str) -> dict[str, Any]:
        """What is shown of one sample.

        Raises:
            HTTPNotFound: There is none such among the scored ones.
        """
        row = self.rows.sample(shard, key)
        if row is None:
            raise web.HTTPNotFound(text="No scored sample has this shard and key.")
        pairs = [
            (name[len(PAIR) :].replace("_", " + "), row[name], "k0")
            for name in row
            if name.startswith(PAIR) and row[name] is not None
        ]
        same = []
        if row.get("group") is not None:
            same = [r for r in self.rows.group(row["group"], SAME_GROUP) if r["key"] != key]
        seen = [
            (number, cmc, member)
            for number, (cmc, member) in enumerate(
                zip(row.get("cmc") or (), row.get("member") or (), strict=False)
            )
        ]
        return {
            "row": self._row(row, "multimem"),
            "doubt": doubt(row),
            "misfit": misfit_words(row, self.table.modalities),
            "contents": self.shards.contents(shard, key, LARGE),
            "attribution": self._bars(row, ATTRIBUTION, "What each modality adds to MultiMem"),
            "unseen": self._bars(row, UNSEEN, "How well each modality fits the others"),
            "pairs": svg.signed_bars(pairs, "MultiMem by pair", left=110) if pairs else None,
            "models": seen,
            "alike": [self._row(o, "") for o in self.rows.duplicates(shard, key, SAME_GROUP)],
            "same": [self._row(other, "multimem") for other in same],
        }

    def _bars(self, row: Row, prefix: str, label: str) -> Any:
        parts = [
            (name, row[f"{prefix}{name}"], colour(name))
            for name in self.table.modalities
            if row.get(f"{prefix}{name}") is not None
        ]
        return svg.signed_bars(parts, label) if parts else None

    def _row(self, row: Row, by: str) -> dict[str, Any]:
        shard, key = row["shard"], row["key"]
        return {
            **row,
            "score": row.get(by),
            "link": urlencode({"shard": shard, "key": key}),
            "picked": (shard, key) in self.selection,
            "noise": standing(row) == "noise",
        }


async def aside(call: Callable[..., T], *arguments: Any) -> T:
    """What a call returns that would hold up other visitors' requests."""
    return await asyncio.to_thread(call, *arguments)


def application(view: View, token: str) -> web.Application:
    """The server of a view.

    Args:
        token: What a visitor must know.
    """
    app = web.Application(middlewares=[_worded, guarded(token)], client_max_size=MOST_BODY)
    app.on_response_prepare.append(add_headers)
    app.add_routes(
        [
            web.get("/", _bound(view, _index)),
            web.get("/count", _bound(view, _count)),
            web.get("/peek", _bound(view, _peek)),
            web.get("/sample", _bound(view, _sample)),
            web.post("/pick", _bound(view, _pick)),
            web.get("/static/{name}", _static),
        ]
    )
    return app


Bound = Callable[[View, web.Request], Awaitable[web.StreamResponse]]


def _bound(view: View, handler: Bound) -> Handler:
    return functools.partial(handler, view)


@web.middleware
async def _worded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of ours as words: the visitor's as 400, a file's as 500."""
    try:
        return await handler(request)
    except MultiMemError as error:
        status = 400 if isinstance(error, ConfigError) else 500
        return web.Response(text=line(str(error), 600), status=status)


def _page(view: View, template: str, **values: Any) -> web.Response:
    html = view.pages.get_template(template).render(**values)
    return web.Response(text=html, content_type="text/html")


async def _index(view: View, request: web.Request) -> web.StreamResponse:
    made = await aside(view.listing, request.query)
    part = request.headers.get("HX-Request") == "true" and not request.headers.get(
        "HX-History-Restore-Request"
    )
    return _page(view, "rows.html" if part else "index.html", **made)


async def _count(view: View, request: web.Request) -> web.StreamResponse:
    found = await aside(view.count, request.query)
    return web.Response(text=text.plural(found, "sample"))


async def _peek(view: View, request: web.Request) -> web.StreamResponse:
    shard, key = _named(request.query)
    await _require_shard(view, shard)
    contents = await aside(view.shards.contents, shard, key)
    return _page(view, "peek.html", contents=contents)


async def _sample(view: View, request: web.Request) -> web.StreamResponse:
    made = await aside(view.sample, *_named(request.query))
    part = request.headers.get("HX-Request") == "true"
    return _page(view, "sample.html", part=part, **made)


async def _pick(view: View, request: web.Request) -> web.StreamResponse:
    """Tick or untick samples; answers with how many are picked."""
    form = await request.post()
    shards, keys = form.getall("shard", []), form.getall("key", [])
    samples = [(str(s), str(k)) for s, k in zip(shards, keys, strict=False)]
    for shard in set(shards):
        await _require_shard(view, str(shard))
    picked = form.get("picked") == "on"

    def change() -> None:
        view.selection.change(samples, picked)
        view.rows.pick(samples, picked)
        view.changes += 1

    await aside(change)
    return _page(view, "picked.html")


async def _require_shard(view: View, shard: str) -> None:
    """Only shards of the run are opened, whatever a request names."""
    if not await aside(view.table.files_of, [shard]):
        raise web.HTTPNotFound(text="No shard of this run has this name.")


async def _static(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    package, path, kind = STATIC[name]
    data = resources.files(package).joinpath(path).read_bytes()
    return web.Response(body=data, content_type=kind, charset="utf-8")


def _named(query: Mapping[str, str]) -> tuple[str, str]:
    shard, key = query.get("shard", ""), query.get("key", "")
    if not shard or not key:
        raise web.HTTPBadRequest(text="A sample is named by shard and key.")
    return shard, key
