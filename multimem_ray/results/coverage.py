"""Was every sample scored, held out or refused with a reason? The sums, checked.

Three sources must agree: the markers under ``commits/`` (what each shard promised), the rows in
``scores/`` and the rows in ``errors/``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from multimem_ray.results.table import ScoreTable

EXAMPLES = 3
MISSING = "missing_shard"  # told by ``shards.missing``; neither a sample nor damage


def coverage(table: ScoreTable, run: dict[str, Any], scored_rows: int) -> dict[str, Any]:
    """Counts of samples and shards, and whether the sums agree.

    Args:
        table: The scores of a run.
        run: Its ``run.json``.
        scored_rows: Rows counted in the score files.

    Returns:
        ``shards`` (named, committed, pending, missing), ``scored``, ``held_out``, ``errors``
        (rows; one without a key stands for damage to a shard, not for one sample),
        ``damaged`` (those without a key; missing shards are in neither), ``samples``,
        ``errors_by`` stage and kind with examples, ``agrees`` and ``disagreements`` in words.
    """
    commits = table.commits
    rows = sum(c.rows for c in commits)
    promised = sum(c.errors for c in commits)
    kinds, keyless = _errors(table)
    errors = sum(kind["count"] for kind in kinds if kind["error"] != MISSING)
    missing = [str(name) for name in run.get("missing") or []]
    named = int(run.get("shards") or len(commits))
    problems = []
    if rows != scored_rows:
        problems.append(f"{rows} rows were committed, {scored_rows} are in scores/")
    if promised != errors:
        problems.append(f"{promised} errors were committed, {errors} are in errors/")
    held_out = sum(c.held_out for c in commits)
    return {
        "shards": {
            "named": named,
            "committed": len(commits),
            "pending": max(0, named - len(commits)),
            "missing": missing,
        },
        "scored": scored_rows,
        "held_out": held_out,
        "errors": errors,
        "damaged": keyless,
        "samples": scored_rows + held_out + errors - keyless,
        "errors_by": kinds,
        "agrees": not problems,
        "disagreements": problems,
    }


def _errors(table: ScoreTable) -> tuple[list[dict[str, Any]], int]:
    """Error counts by stage and kind, most frequent first, and how many rows have no key."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[dict[str, Any]]] = {}
    keyless = 0
    for batch in table.error_batches():
        for row in batch.to_pylist():
            kind = (str(row["stage"]), str(row["error"]))
            counts[kind] += 1
            keyless += row["key"] is None and kind[1] != MISSING
            shown = examples.setdefault(kind, [])
            if len(shown) < EXAMPLES:
                shown.append({name: row[name] for name in ("shard", "key", "detail")})
    return [
        {"stage": stage, "error": error, "count": count, "examples": examples[stage, error]}
        for (stage, error), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ], keyless
