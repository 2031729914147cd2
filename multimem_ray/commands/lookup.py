"""``multimem lookup`` and ``multimem catalogue``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from multimem_ray.commands.common import (
    AsJson,
    Endpoint,
    RunFolder,
    existing,
    progress,
    table_of,
    tell,
)
from multimem_ray.errors import ConfigError


def lookup(
    output: RunFolder,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="keys of samples")] = None,
    list_: Annotated[
        str | None,
        typer.Option("--list", help="file with one on each line, or Parquet with such a column"),
    ] = None,
    url: Annotated[bool, typer.Option("--url", help="what is given are URLs")] = False,
    field: Annotated[str, typer.Option(help="with --url: JSON field that holds it")] = "url",
    hash_: Annotated[
        bool, typer.Option("--hash", help="what is given are contents, as column group has them")
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(help="a picture, sound, clip or text: the samples it is most like"),
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="with --like: what it is; default: as its name says")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="with --like: the model that embeds; default: the first")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="with --like: how many samples")] = 10,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Look samples up: trained on or not, score, interval, q-value, attack risk, duplicates.

    By key, by URL, by content, or by a file that is like them (with stored embeddings). What is no
    sample of the run is counted and named.
    """
    from multimem_ray.lookup.find import lookup as find
    from multimem_ray.lookup.find import read_asked

    if url and hash_:
        raise ConfigError("lookup: give one of --url and --hash")
    _, storage = existing(output, endpoint_url)
    if like is not None:
        if keys or list_ or url or hash_:
            raise ConfigError("lookup: --like stands alone, without keys, --list, --url or --hash")
        from multimem_ray.lookup.similar import similar

        options: Any = {"modality": modality, "model": model, "n": n}
        _show(similar(output, like, **options, storage=storage, progress=progress()), as_json)
        return
    by: Any = "url" if url else "hash" if hash_ else "key"
    asked: list[Any] = list(keys or [])
    if list_ is not None:
        column = {"key": "key", "hash": "group", "url": field.removeprefix("json.")}[by]
        asked += read_asked(list_, storage, column)
    path = field if field.startswith("json.") else f"json.{field}"
    answer = find(output, asked, by=by, field=path, storage=storage, progress=progress())
    _show(answer, as_json)


def _show(answer: Any, as_json: bool) -> None:
    content = answer.as_json()
    alike = {"like": "right"} if answer.by == "like" else {}
    columns = alike | dict.fromkeys(("key", "trained on", "state"), "left")
    columns |= dict.fromkeys(("score", "95 % interval", "q", "attack", "copies"), "right")
    counts = content["counts"]
    words = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n)
    rows = [[*_similarity(match), *_row(match)] for match in answer.matches]
    tell(
        content,
        *([table_of({**columns, "shard": "left"}, rows)] if rows else []),
        *(f"missed: {query}" for query in answer.misses),
        *answer.notes,
        f"by {answer.by}: {words}",
        as_json=as_json,
    )


def _similarity(match: dict[str, Any]) -> list[Any]:
    return [match["similarity"]] if "similarity" in match else []


def _row(match: dict[str, Any]) -> list[Any]:
    seen, unseen = len(match["models_in"]), len(match["models_out"])
    trained = f"{seen} of {seen + unseen} models" if seen + unseen else "not known"
    low, high = match.get("low"), match.get("high")
    state = match["state"].replace("_", " ")
    if "error" in match and match["state"] == "error":
        state = f"error: {match['error']['error']}"
    return [
        match["key"],
        trained,
        state,
        match.get("multimem"),
        None if low is None else f"{low:.2f} to {high:.2f}",
        match.get("q"),
        match.get("attack_risk"),
        (match.get("duplicates") or {}).get("count"),
        match["shard"].rsplit("/", 1)[-1] if match["shard"] else None,
    ]


def catalogue(
    output: RunFolder,
    field: Annotated[
        list[str] | None, typer.Option(help="JSON field to keep, such as json.source; repeatable")
    ] = None,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Read what the shards say of every sample once, so that look-ups need them no more."""
    from multimem_ray.results.catalogue import Catalogue

    _, storage = existing(output, endpoint_url)
    kept = Catalogue(output, storage).ensure(field or [], progress())
    content = {"shards": len(kept.files), "of": len(kept.shards), "fields": kept.fields}
    told = f"{len(kept.files)} of {len(kept.shards)} shards, with {', '.join(kept.fields)}"
    tell(content, told, as_json=as_json)
