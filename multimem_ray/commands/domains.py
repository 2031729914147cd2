"""``multimem domains``."""

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

_KINDS = {"samples": "right", "mean": "right", "95 % interval": "right", "shrunk": "right"}
_KINDS |= {"listed": "right", "95 % interval ": "right"}


def domains(
    output: RunFolder,
    by: Annotated[
        str,
        typer.Option(
            help="label, split, group, modalities, shard, partition, host, or a JSON field such as "
            "json.source"
        ),
    ],
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="values shown; default: 20, all with --json")
    ] = None,
    fdr: Annotated[
        float | None, typer.Option(help="the list: memorized at all, with this share of false ones")
    ] = None,
    percent: Annotated[
        float | None, typer.Option(help="the list: so many in a hundred, the highest")
    ] = None,
    field: Annotated[str, typer.Option(help="with --by host: JSON field that holds it")] = "url",
    out: Annotated[
        str | None, typer.Option(help="the table (.parquet); default: in the run's domains/")
    ] = None,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Mean score, and share of the listed, for each value of a field; small groups are shrunk."""
    from multimem_ray.results.domains import domains as by_domain
    from multimem_ray.results.domains import write_domains
    from multimem_ray.results.select import Wanted
    from multimem_ray.results.table import ScoreTable

    if fdr is not None and percent is not None:
        raise ConfigError("domains: give one of --fdr and --percent")
    _, storage = existing(output, endpoint_url)
    table = ScoreTable(output, storage)
    listed = None if fdr is None and percent is None else Wanted(fdr=fdr, percent=percent)
    made = by_domain(table, by, listed=listed, url_field=field, progress=progress())
    url = write_domains(table, made, out)
    tell(
        made.as_json(n) | {"table": url},
        table_of({made.by: "fold", **_KINDS}, _rows(made, n or 20)),
        *_sentences(made, n or 20),
        f"all figures: {url}",
        as_json=as_json,
    )


def _rows(made: Any, n: int) -> list[list[Any]]:
    return [_row(row, made.by == "shard") for row in made.table.slice(0, n).to_pylist()]


def _row(row: dict[str, Any], of_shards: bool) -> list[Any]:
    value = "(none)" if row["value"] is None else row["value"]
    return [
        value.rsplit("/", 1)[-1] if of_shards else value,
        f"{row['samples']:,}",
        row["mean"],
        _interval(row["low"], row["high"], 1, 3),
        row["shrunk"],
        None if row["share"] is None else f"{100 * row['share']:.1f} %",
        _interval(row["share_low"], row["share_high"], 100, 1),
    ]


def _interval(low: float | None, high: float | None, by: float, digits: int) -> str | None:
    if low is None or high is None:
        return None
    return f"{by * low:.{digits}f} to {by * high:.{digits}f}"


def _sentences(made: Any, shown: int) -> list[str]:
    whole = made.whole
    listed = f"{100 * whole['share']:.1f} % listed: {made.listed}"
    spread = f"true means differ by a standard deviation of {whole['between_sd']:.3f}"
    told = [
        f"all {whole['scored']:,} scored: mean {whole['mean']:.3f}, {listed}",
        f"shrunk: what is expected of very many samples; {spread}",
    ]
    if len(made.table) > shown:
        told.append(f"{shown} of {len(made.table):,} values, by the shrunk mean; -n for more")
    if made.missed:
        told.append(
            f"{made.missed:,} scored samples were not met in the catalogue: counted as none"
        )
    return told
