"""``multimem export``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from multimem_ray.commands.common import AsJson, Endpoint, RunFolder, progress, storage_at, tell


def export(
    output: RunFolder,
    to: Annotated[
        str,
        typer.Option(help="csv, json, parquet, card, croissant, huggingface or fiftyone"),
    ],
    out: Annotated[
        str | None, typer.Option(help="file or folder; default: in exports/ of the run")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="so many samples, the most memorized; default: all")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="column of the scores; repeatable; default: all")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="JSON field beside them, such as url; repeatable")
    ] = None,
    name: Annotated[
        str, typer.Option(help="of the data set that is handed on")
    ] = "memorization-scores",
    license_: Annotated[
        str | None, typer.Option("--license", help="of it, for croissant and huggingface")
    ] = None,
    url: Annotated[str | None, typer.Option(help="of it, for croissant")] = None,
    published: Annotated[
        str | None, typer.Option(help="day on which it is, for croissant, such as 2026-11-26")
    ] = None,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Hand a run's findings on: tables, a data card, Croissant, Hugging Face, FiftyOne."""
    from multimem_ray.export.write import export as write

    form: Any = to
    made = write(
        output,
        form,
        out,
        columns=column or (),
        fields=field or (),
        top=top,
        name=name,
        license=license_,
        url=url,
        published=published,
        storage=storage_at(endpoint_url),
        progress=progress(),
    )
    rows = "" if made.rows is None else f"{made.rows:,} samples: "
    tell(made.as_json(), *made.notes, f"{rows}{made.url}", as_json=as_json)
