"""``multimem diff``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from multimem_ray.commands.common import AsJson, Endpoint, existing, table_of, tell
from multimem_ray.errors import ConfigError


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="output of a run, such as that before")],
    b: Annotated[str, typer.Argument(metavar="B", help="output of the other; told is B - A")],
    n: Annotated[int, typer.Option("-n", min=0, help="largest movers shown")] = 10,
    fdr: Annotated[
        float, typer.Option(help="share of false ones among those that count as moved")
    ] = 0.05,
    out: Annotated[
        str | None, typer.Option(help="table of all samples (.parquet); default: in B's diffs/")
    ] = None,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Compare two runs sample by sample: what moved, and whether beyond its error."""
    from multimem_ray.results.diff import diff as compare
    from multimem_ray.results.table import ScoreTable

    if not 0 < fdr < 1:
        raise ConfigError(f"--fdr {fdr}: give a share between 0 and 1, such as 0.05")
    tables = [ScoreTable(run, existing(run, endpoint_url)[1]) for run in (a, b)]
    made = compare(tables[0], tables[1], fdr=fdr, movers=n, out=out)
    columns = {"key": "fold", "A": "right", "B": "right", "B - A": "right"}
    columns |= {"95 % interval": "right", "q": "right", "shard": "fold"}
    rows = [_row(row) for row in made.movers]
    tell(
        made.as_json(),
        *([table_of(columns, rows)] if rows else []),
        *sentences(made.summary),
        f"all samples: {made.url}",
        as_json=as_json,
    )


def _row(row: dict[str, Any]) -> list[Any]:
    interval = None if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    shard = row["shard"].rsplit("/", 1)[-1] if row["shard"] else None
    return [row["key"], row["a"], row["b"], row["difference"], interval, row["q"], shard]


def sentences(summary: dict[str, Any]) -> list[str]:
    """What a comparison found."""
    told = [f"{summary['samples']:,} samples in common; " + _figure("mean B - A", summary["mean"])]
    told.append(_figure("rank correlation", summary["correlation"]))
    moved = summary["moved"]
    if moved is None:
        told.append("what moved beyond its error is not known: a run has no standard errors")
    else:
        told.append(
            f"{100 * moved['share']:.1f} % ({100 * moved['low']:.1f} to "
            f"{100 * moved['high']:.1f}) moved beyond their error, {100 * moved['fdr']:g} % of "
            f"these falsely as expected: {moved['up']:,} up, {moved['down']:,} down"
        )
    for name, what in (
        ("a_alone", "scored in A alone"),
        ("b_alone", "scored in B alone"),
        ("changed", "of one name but another content, left out"),
    ):
        missed = summary[name]
        if missed["count"]:
            told.append(f"{missed['count']:,} {what}, such as {', '.join(missed['examples'])}")
    if summary["without_score"]:
        told.append(f"{summary['without_score']:,} in common without a score in one of them")
    return told


def _figure(name: str, value: dict[str, Any]) -> str:
    if value["value"] is None:
        return f"{name} is not known"
    interval = "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
    return f"{name} {value['value']:.3f}{interval}"
