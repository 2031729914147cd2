"""A removal certificate for people: Markdown, in which no name can leave its place."""

from __future__ import annotations

from typing import Any

from multimem_ray.foreign_text import line

EXAMPLES, REMOVED = 20, "removed.parquet"


def as_markdown(content: dict[str, Any]) -> str:
    """The certificate for people."""
    rule = content["rule"]
    selection = rule.get("selection") or {}
    others = f"the other {content['kept']:,} are byte for byte as before"
    version = f"multimem_ray {content['multimem_ray']}"
    lines = [
        "# Removal certificate",
        "",
        f"{content['removed']:,} of {content['samples']:,} samples were removed; {others}.",
        "",
        f"- Written by {version}; SHA-256 of this certificate `{content['sha256']}`.",
        f"- Rule: {rule['removed']} samples of `{_code(rule['list'] or 'a list')}` were removed.",
    ]
    if selection:
        asked = selection.get("asked") or {}
        how = ", ".join(f"{name} {value}" for name, value in asked.items())
        how = f" (`{_code(how)}`)" if how else ""
        null = f"; `{_code(selection['null'])}`" if selection.get("null") else ""
        lines.append(f"- The list: by `{_code(selection.get('by', '?'))}`{how}{null}.")
    for side, told in content["scores"].items():
        if told:
            mean = "–" if told["mean"] is None else f"{told['mean']:.3f}"
            lines.append(
                f"- Scores {side}: `{_code(told['run'])}` (`{_code(told['fingerprint'])}`): "
                f"{told['scored']:,} of them scored, mean MultiMem {mean}; "
                f"{told['not_scored']:,} not scored there."
            )
    lines += ["", "| shard | SHA-256 before | after | removed |", "|---|---|---|---:|"]
    for shard in content["shards"]:
        after = shard["after"]["sha256"] if shard["after"] else "nothing is left"
        before = shard["before"]
        place = f"`{_code(before['url'])}` (version `{_code(before['version'])}`)"
        lines.append(f"| {place} | `{before['sha256']}` | `{after}` | {shard['removed']:,} |")
    more = f", {EXAMPLES} of {content['removed']:,}" if content["removed"] > EXAMPLES else ""
    lines += ["", f"Removed samples{more}; all of them in `{REMOVED}`:", ""]
    lines += ["| key | shard | before | after |", "|---|---|---:|---:|"]
    for row in content["examples"]:
        shard = row["shard"].rsplit("/", 1)[-1]
        cells = (f"`{_code(row['key'])}`", f"`{_code(shard)}`", _score(row, "before"))
        lines.append(f"| {' | '.join(cells)} | {_score(row, 'after')} |")
    lines += ["", "Check it with `multimem certificate FOLDER --check`."]
    return "\n".join(lines) + "\n"


def _score(row: dict[str, Any], side: str) -> str:
    own = row.get(side) or {}
    if own.get("multimem") is None:
        return "–"
    if own.get("low") is None:
        return f"{own['multimem']:.3f}"
    return f"{own['multimem']:.3f} ({own['low']:.3f} to {own['high']:.3f})"


def _code(value: object) -> str:
    """Text between backticks in a table, which no text can leave."""
    return line(value, 300).replace("`", "'").replace("|", "\\|")
