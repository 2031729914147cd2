"""What commands share: options, the opened run, and how an answer is told."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from multimem_ray.foreign_text import line

RunFolder = Annotated[str, typer.Argument(metavar="OUTPUT", help="folder or s3:// prefix of a run")]
Endpoint = Annotated[
    str | None, typer.Option(help="S3-compatible endpoint, as storage.endpoint_url of the run")
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object")]


def say(text: str) -> None:
    """One line on standard output, whatever names and captions it holds."""
    typer.echo(line(text))


def tell(content: Any, *told: Table | str, as_json: bool) -> None:
    """One JSON object, or what is told to a person: tables and sentences, in their order."""
    if as_json:
        typer.echo(json.dumps(content, indent=1))
        return
    for part in told:
        if isinstance(part, str):
            say(part)
        else:
            console().print(part)


def table_of(columns: dict[str, str], rows: list[list[Any]]) -> Table:
    """A table without a frame; ``columns`` says how each is justified: left, right or fold."""
    table = Table(box=None, pad_edge=False)
    for name, kind in columns.items():
        right = kind == "right"
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def cell(value: Any) -> str:
    """A value of a table as text."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else line(value)


def storage_at(endpoint_url: str | None) -> Any:
    """The storage that an option names."""
    from multimem_ray.config import StorageConfig
    from multimem_ray.storage import Storage

    return Storage(StorageConfig(endpoint_url=endpoint_url))


def existing(output: str, endpoint_url: str | None) -> tuple[dict[str, Any], Any]:
    """``run.json`` of a run, and the storage that it is read from."""
    from multimem_ray.run import load_run

    storage = storage_at(endpoint_url)
    return load_run(output, storage), storage


def progress() -> Any:
    """What is told meanwhile, on standard error."""
    from multimem_ray.progress import Progress

    return Progress()


def console() -> Console:
    """Standard output; not cut to a narrow width when it is a file or a pipe."""
    shown = Console()
    return shown if shown.is_terminal else Console(width=200)
