"""What a run found, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multimem_ray.foreign_text import line
from multimem_ray.results.attack import attack_words
from multimem_ray.results.blend import blend_words
from multimem_ray.results.duplicates import duplicate_words
from multimem_ray.results.growth import growth_words
from multimem_ray.results.reliability import reliability_words

_METHODS = {
    "multimem": "MultiMem, high",
    "cmc_out": "consistency under models that never saw it, low",
    "one_model": "consistency under one model that saw it, low (the filter of today)",
}


def print_summary(summary: Mapping[str, Any], output: str, console: Console) -> None:
    """Coverage, level of memorization, planted truth if any, and where to look next."""

    def say(text: str = "") -> None:
        console.print(line(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    cover = summary["coverage"]
    say()
    say(
        f"{cover['samples']} samples: {cover['scored']} scored, {cover['held_out']} held out, "
        f"{cover['errors']} in errors/"
        + ("; the sums agree" if cover["agrees"] else "; THE SUMS DO NOT AGREE")
    )
    for problem in cover["disagreements"]:
        say(f"  {problem}")
    for kind in cover["errors_by"][:8]:
        say(f"  {kind['count']} × {kind['stage']}/{kind['error']}")
    for url in cover["shards"]["missing"][:8]:
        say(f"  missing shard: {url}")
    if summary.get("duplicates"):
        say(duplicate_words(summary["duplicates"]))
    score = (summary["scores"] or {}).get("multimem")
    if score and score["count"]:
        q = score["quantiles"]
        say(
            f"MultiMem: mean {score['mean']:.3f}, median {q['0.5']:.3f}, 95 % {q['0.95']:.3f}, "
            f"highest {score['max']:.3f}" + _noise(summary["noise"])
        )
    target = summary.get("target")
    if target and target["gap"] is not None:
        error = "" if target["gap_se"] is None else f" ± {target['gap_se']:.3f}"
        say(
            f"target: {target['gap']:.3f}{error} above the references on {target['held_out']} "
            "held-out samples that neither saw; subtracted"
        )
    sentences = [
        *growth_words(summary.get("growth")),
        *blend_words(summary.get("blend")),
        *reliability_words(summary["reliability"]),
        *null_words(summary["noise"]),
        *attack_words(summary.get("attack")),
    ]
    for sentence in sentences:
        say(sentence)
    shares = [row for row in summary["attribution"] if row["mean"] is not None]
    if shares:
        parts = ", ".join(f"{row['modality']} {row['mean']:.3f}" for row in shares)
        say(f"by modality: {parts}")
    if summary["planted"]:
        console.print(_planted_table(summary["planted"]))
    plan = summary.get("plan")
    if plan:
        total = plan["total"]
        say(
            f"took {total['actual_s']:.0f} s, {total['ratio']:.2f} times the planned "
            f"{total['estimated_s']:.0f} s"
            + ("" if plan["same_cluster"] else " (planned for another cluster)")
        )
    say(f"look at {output}/report.html, or: multimem top {output}")


def null_words(noise: Mapping[str, Any]) -> list[str]:
    """What the list against "not memorized at all" holds, and when that is the wrong question."""
    listed = next((row["count"] for row in noise.get("lists", []) if row["q"] == 0.05), None)
    if listed is None or not noise["count"]:
        return []
    said = (
        f"{listed} samples can be listed as memorized at all (more than zero), 5 % of them falsely "
        "as expected: multimem select --fdr 0.05."
    )
    if listed > 0.5 * noise["count"]:
        said += (
            " Where most are memorized to some degree, zero is the wrong question: ask who is "
            "memorized more than some amount, as in multimem select --more-than 80% --fdr 0.05."
        )
    return [said]


def top_table(
    rows: Sequence[Mapping[str, Any]], by: str, modalities: Sequence[str], width: int
) -> Table:
    """Score rows for a terminal: what names a sample, and of the rest what there is room for.

    Args:
        rows: Best first.
        by: The column that they are ranked by.
        modalities: Names, for their attributions.
        width: Columns of the terminal.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    numbers = [by] if width < 72 else list(dict.fromkeys([by, "multimem"]))
    told = [("q", "multimem_q")] if width >= 72 else []
    told += [("cmc_out", "cmc_out")] if width >= 88 and by != "cmc_out" else []
    if width >= 100 + 10 * len(modalities):
        told += [(f"↳ {name}", f"attribution_{name}") for name in modalities]
    for column in numbers:
        table.add_column(column.removeprefix("multimem_"), justify="right", no_wrap=True)
    if width >= 72:
        table.add_column("95 % interval", justify="right", no_wrap=True)
    for name, _ in told:
        table.add_column(name, justify="right", no_wrap=True)
    if width >= 100:
        table.add_column("label", overflow="ellipsis", no_wrap=True)
    table.add_column("key", overflow="fold")
    table.add_column("shard", overflow="fold")
    for row in rows:
        cells = [_decimal(row[c]) for c in numbers]
        if width >= 72:
            low, high = row.get("multimem_low"), row.get("multimem_high")
            cells.append("" if low is None else f"{low:.2f} to {high:.2f}")
        cells += [_decimal(row.get(column)) for _, column in told]
        names = [line(row["label"] or "")] if width >= 100 else []
        names += [line(row["key"]), line(row["shard"].rsplit("/", 1)[-1])]
        table.add_row(*cells, *map(Text, names))
    return table


def _decimal(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def evaluation_table(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    """Mean of each figure over the models, with its interval, what chance gives, and how models
    differ.

    Args:
        result: The content of ``evaluation.json``.
        rows: Its figures with intervals; see :func:`multimem_ray.report.outcome.evaluation_rows`.
    """
    table = Table(
        title=f"{len(result['models'])} models on {result['samples']} held-out samples",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in ("task", "of"):
        table.add_column(column)
    for column in ("mean", "95 % interval", "chance", "± se"):
        table.add_column(column, justify="right")
    for row, told in zip(result["mean"], rows, strict=True):
        se = "" if row["se"] is None else f"{row['se']:.3f}"
        interval = f"{told['low']:.3f} to {told['high']:.3f}"
        cells = [f"{row['mean']:.3f}", interval, _decimal(told["chance"]), se]
        table.add_row(row["task"], Text(line(row["of"])), *cells)
    return table


def _noise(noise: Mapping[str, Any]) -> str:
    if not noise["count"]:
        return " (no standard errors: they need two models on each side)"
    return (
        f"; standard error of a sample {noise['mean_se']:.3f}, "
        f"{100 * noise['above']:.0f} % have their 95 % interval above zero "
        f"({100 * noise['by_chance']:.1f} % would by chance)"
    )


def _planted_table(planted: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"finding the {planted['planted']} planted among {planted['samples']} samples",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("score")
    for column in ("AUROC", "95 % interval", "precision at k"):
        table.add_column(column, justify="right")
    for method, words in _METHODS.items():
        found = planted["methods"].get(method)
        if found is None:
            table.add_row(words, "undefined", "", "")
            continue
        at_k = next(p for p in found["precision"] if p["k"] == planted["planted"])
        interval = f"{found['low']:.3f} to {found['high']:.3f}" if found["low"] is not None else ""
        table.add_row(words, f"{found['auroc']:.3f}", interval, f"{at_k['precision']:.2f}")
    return table
