"""``multimem certificate``."""

from __future__ import annotations

from typing import Annotated

import typer

from multimem_ray.commands.common import AsJson, Endpoint, progress, storage_at, tell


def certificate(
    resharded: Annotated[
        str, typer.Argument(metavar="FOLDER", help="folder or s3:// prefix that reshard wrote")
    ],
    run: Annotated[
        str | None,
        typer.Option(help="run with the scores before; default: that of the selection"),
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="run with the scores after, of models trained without them")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="folder of the certificate; default: certificate/ in FOLDER")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="compute the hashes of a certificate again")
    ] = False,
    as_json: AsJson = False,
    endpoint_url: Endpoint = None,
) -> None:
    """Certify what reshard removed: rule, shards before and after with hashes, scores.

    With --check nothing is written, and the exit status is 1 if something is not as certified.
    """
    from multimem_ray.export.certificate import certify
    from multimem_ray.export.certificate_check import check as checked

    storage = storage_at(endpoint_url)
    if check:
        told = checked(resharded, storage, out)
        tell(told.as_json(), *told.lines(), as_json=as_json)
        if told.faults:
            raise typer.Exit(1)
        return
    with progress().task("certificate", 1, unit="shards") as shown:
        made = certify(resharded, storage, run=run, after=after, out=out, advance=shown.resize)
    tell(
        made,
        f"{made['removed']:,} of {made['samples']:,} samples removed from {len(made['shards'])} "
        f"shards; {made['kept']:,} are byte for byte as before",
        f"certificate: {made['url']}, SHA-256 {made['sha256']}",
        as_json=as_json,
    )
