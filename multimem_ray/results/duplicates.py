"""What was left out together: groups of scored samples, from their column ``group``.

Nothing has to be listed while shards are read: equal contents have equal names, so the rows tell
of their copies afterwards. DuckDB counts over hashes of the names and spills beyond its bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimem_ray.design.group_table import is_table, read_groups
from multimem_ray.design.held_out import HeldOutRule
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run

EXAMPLES, SHOWN = 20, 5

_COUNTED = """
SELECT count(*) AS groups, coalesce(sum(size), 0)::BIGINT AS samples,
       coalesce(max(size), 0)::BIGINT AS largest
FROM (SELECT count(*) AS size FROM scores WHERE "group" IS NOT NULL GROUP BY hash("group"))
WHERE size > 1
"""
_LARGEST = f"""
SELECT "group", count(*) AS count, avg(multimem) AS multimem,
       min({{'shard': shard, 'key': key}}, {SHOWN}) AS samples
FROM scores WHERE "group" IS NOT NULL
GROUP BY "group" HAVING count(*) > 1 ORDER BY count DESC, "group" LIMIT {EXAMPLES}
"""


def duplicates(table: ScoreTable, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Groups of more than one scored sample; None where samples are not grouped.

    Args:
        table: The scores of a run.
        run: Its ``run.json``.

    Returns:
        ``by`` (``design.group``), ``groups`` with more than one scored sample, ``samples`` in
        them, ``copies`` (samples beyond the first of each group), ``largest``, ``examples`` (the
        largest groups: count, mean MultiMem, some of their samples), and with a table of groups
        ``table`` (rows, and how many of them were met, held out, and missed).
    """
    group = ((run.get("config") or {}).get("design") or {}).get("group")
    if group is None or not table.score_files:
        return None
    (counts,) = table.query(_COUNTED, ["group"])
    examples = table.query(_LARGEST, ["group", "multimem", "shard", "key"])
    return {
        "by": group,
        **counts,
        "copies": counts["samples"] - counts["groups"],
        "examples": examples if counts["groups"] else [],
        "table": _of_table(table, run) if is_table(group) else None,
    }


def _of_table(table: ScoreTable, content: Mapping[str, Any]) -> dict[str, int]:
    """Rows of the table of groups, and what became of them.

    Held-out samples have no row in the scores; which they are follows from the rule.
    """
    run = Run.from_json(content)
    groups = read_groups(str(run.config.design.group), table.storage, run.shard_parts)
    apart = run.config.held_out.shards is not None
    names = list(groups.names)
    rule = None if apart else HeldOutRule(run.config.held_out, run.config.design.seed)
    held = 0
    if rule is not None and names:
        held = int(rule.is_held_out(names, "")[groups.codes].sum())
    scored = 0
    for batch in table.batches(["key", "shard"]):
        pairs = zip(batch["key"].to_pylist(), batch["shard"].to_pylist(), strict=True)
        scored += sum(groups.group(k, s) is not None for k, s in pairs)
    return {
        "rows": len(groups),
        "scored": scored,
        "held_out": held,
        "missed": max(0, len(groups) - scored - held),
    }


def duplicate_words(found: Mapping[str, Any] | None) -> str:
    """The finding in a sentence; nothing where samples are not grouped."""
    if found is None:
        return ""
    groups, samples = found["groups"], found["samples"]
    if found["by"] == "content":
        if not groups:
            return "No exact copies among the scored samples."
        return (
            f"{samples:,} scored samples have exact copies, in {groups:,} "
            f"{'group' if groups == 1 else 'groups'} (largest: {found['largest']:,}); copies were "
            "trained on and left out together."
        )
    said = (
        f"{samples:,} scored samples share a group with others ({groups:,} groups, largest: "
        f"{found['largest']:,}), and were trained on and left out together."
    )
    known = found["table"]
    if known is not None:
        said += (
            f" Of {known['rows']:,} samples in the table of groups {known['scored']:,} were "
            f"scored, about {known['held_out']:,} held out, and {known['missed']:,} not met or "
            "not usable."
        )
    return said
