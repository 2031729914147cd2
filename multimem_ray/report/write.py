"""Puts the report together: summary, top samples and their content, one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from multimem_ray.design.shard_names import tail
from multimem_ray.modalities import registry
from multimem_ray.report.page import RunView, render
from multimem_ray.report.samples import Place, fetch_contents, places_of
from multimem_ray.results.domains import Domains, catalogued_domains, domains
from multimem_ray.results.planted import read_truth
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import Progress, ScoreTable
from multimem_ray.results.top import top as best
from multimem_ray.storage import Storage

Stages = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in total)."""


def write_report(
    output: str,
    storage: Storage,
    *,
    top: int = 24,
    low: int | None = None,
    title: str | None = None,
    planted: str | None = None,
    summary: Mapping[str, Any] | None = None,
    by: Sequence[str] = (),
    progress: Stages | None = None,
) -> str:
    """Write ``report.html``, and ``summary.json`` beside it.

    Args:
        output: Folder or ``s3://`` prefix of a run.
        storage: How to reach it, and the shards.
        top: How many of the most memorized samples are shown with their content.
        low: How many of those with the lowest ``cmc_out``; by default half as many.
        title: Heading of the page.
        planted: Parquet with the truth about planted misalignment, if there is one.
        summary: What ``summarize`` returned for this run, if it is there already.
        by: Fields by whose values the page compares; by default those that are catalogued.
        progress: Called as the work goes on.

    Returns:
        URL of the page.

    Raises:
        StorageError: A file of the run cannot be read, or the page not be written.
        ConfigError: The truth does not fit the run, or a plugin of the run is not there.
    """
    table = ScoreTable(output, storage)
    if summary is None:
        summary = summarize(table, planted=planted, progress=_stage(progress, "summary"))
        data = json.dumps(summary, indent=1, allow_nan=False).encode()
        storage.write_atomic(storage.join(output, "summary.json"), data)
    run = table.document("run.json")
    config = run.get("config") or {}
    registry.load_plugins((config.get("data") or {}).get("plugins") or ())
    high_rows = best(table, None, top, progress=_stage(progress, "ranking"))
    low_rows = best(table, "cmc_out", low or max(1, top // 2))
    places = list(dict.fromkeys(places_of([*high_rows, *low_rows])))
    view = RunView(
        summary=summary,
        run=run,
        top=high_rows,
        low=low_rows,
        contents=fetch_contents(
            places,
            run.get("fields") or {},
            storage,
            settings=config.get("modalities"),
            progress=_stage(progress, "samples"),
        )
        if _has_shards(run)
        else {},
        planted=_planted(places, planted, table) if planted else {},
        domains=_domains(table, by),
        evaluation=table.document("evaluation.json"),
        mitigation=table.document("mitigation.json"),
        title=title,
    )
    url = storage.join(output, "report.html")
    storage.write_atomic(url, render(view).encode())
    return url


def _domains(table: ScoreTable, by: Sequence[str]) -> list[Domains]:
    if not table.score_files:
        return []
    if by:
        return [domains(table, name) for name in by]
    return catalogued_domains(table)


def _has_shards(run: Mapping[str, Any]) -> bool:
    """Whether there are samples to show; stored embeddings have none."""
    return not ((run.get("config") or {}).get("data") or {}).get("embeddings")


def _planted(places: Sequence[Place], truth_url: str, table: ScoreTable) -> dict[Place, str]:
    """What was planted in the shown samples, in words."""
    truth, parts = read_truth(truth_url, table.storage, table.shard_parts), table.shard_parts
    named = {(shard, key): (tail(shard, parts), key) for shard, key in places}
    return {place: truth[name] or "a modality" for place, name in named.items() if name in truth}


def _stage(progress: Stages | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(name, done, total)
