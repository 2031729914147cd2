"""Draws ``mitigation.html``: what was done, against what, what it brought and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from multimem_ray.foreign_text import visible
from multimem_ray.modalities import registry
from multimem_ray.report import svg, text
from multimem_ray.report.outcome import mitigation_verdict
from multimem_ray.report.page import asset, security_policy, template
from multimem_ray.report.samples import Content, Place, fetch_contents
from multimem_ray.report.tables import Table, shown
from multimem_ray.run import Run

_TREATMENTS = {
    "unpair": "trained on without the modality that fits least",
    "augment": "regrouped, with noise and stronger views",
    "drop": "left out of training",
}
_CHOOSERS = {
    "multimem_shrunk": "highest shrunk MultiMem of the references",
    "multimem": "highest MultiMem",
    "cmc_out": "lowest consistency for references that never saw them",
    "list": "a given list",
}
_CONTROLS = ("random", "cosine", "clipmem", "gradient_norm")


def write_mitigation(run: Run, result: Mapping[str, Any], tables: Sequence[Table]) -> str:
    """Write the page of a finished mitigated run; returns its URL.

    Args:
        run: The mitigated run.
        result: What ``mitigation.json`` holds.
        tables: Memorization, then utility.

    Raises:
        StorageError: The page cannot be written.
    """
    config = run.config.model_dump(mode="json")
    registry.load_plugins(run.config.data.plugins)
    places = [(row["shard"], row["key"]) for row in result["memory"]["treated"]]
    contents = fetch_contents(places, run.fields, run.storage, settings=config.get("modalities"))
    url = run.path("mitigation.html")
    run.storage.write_atomic(url, render_mitigation(result, tables, contents).encode())
    return url


def render_mitigation(
    result: Mapping[str, Any],
    tables: Sequence[Table],
    contents: Mapping[Place, Sequence[Content]],
) -> str:
    """The page as HTML."""
    style, script = asset("page.css"), asset("page.js")
    memory, utility = tables
    return template("mitigation.html").render(
        policy=security_policy(style, script),
        style=Markup(style),  # noqa: S704 - the package's own file
        script=Markup(script),  # noqa: S704 - the package's own file
        verdict=mitigation_verdict(result),
        tiles=_tiles(result),
        facts=[(name, visible(str(value), 500)) for name, value in _facts(result)],
        memory=memory,
        utility=utility,
        memory_curves=_curves(result["memory"]["curves"], "share of the samples below", "MultiMem"),
        loss_curves=_curves(result["loss"], "epoch", "loss, mean over models"),
        treated=[
            (row, contents.get((row["shard"], row["key"]), ()))
            for row in result["memory"]["treated"]
        ],
        shown=shown,
        visible=visible,
        w=text,
        waveform=svg.waveform,
    )


def _curves(curves: Mapping[str, Sequence[Sequence[float]]], across: str, up: str) -> Markup | None:
    told = [(name, curves[name], kind) for name, kind in (("before", "k1"), ("after", "k0"))]
    return svg.lines(told, across, up) if all(len(of) > 1 for _, of, _ in told) else None


def _tiles(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Value, name and a word of explanation for each headline number."""
    memory, utility = result["memory"], result["utility"]
    old, new = memory["before"]["all"], memory["after"]["all"]
    change, treated = memory["intervals"]["difference"]["all"], memory["count"]["chosen"]
    tiles = [(text.number(new), f"mean MultiMem, before {text.number(old)}", _between(change))]
    for task, ends in list(result["utility_intervals"].items())[:1]:
        a, b = (text.number(100 * utility[of][task], 1) for of in ("before", "after"))
        of_change = _between(ends["difference"], 100)
        tiles.append((b, f"{task.replace('_', ' ')}, before {a}", of_change))
    share = text.percent(treated / memory["samples"])
    tiles.append((text.count(treated), "treated at the end", f"{share} of all compared"))
    if result["overhead"]:
        spent, seconds = result["overhead"]["share"], result["overhead"]["choosing_s"]
        measured = f"{seconds:.1f} s, as measured"
        tiles.append((text.percent(spent, 2), "of training to choose", measured))
    return tiles


def _between(ends: Mapping[str, float] | None, scale: float = 1.0) -> str:
    if ends is None:
        return "no interval"
    digits = 3 if scale == 1.0 else 1
    low, high = (text.number(scale * ends[end], digits) for end in ("low", "high"))
    return f"change {low} to {high} (95 %)"


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    recipe = result["recipe"]
    by, many = recipe["by"], f"{recipe['percent']:g} % of each model's samples"
    if recipe["top"] is not None:
        many = f"{recipe['top']} of each model's samples"
    when = "while the models trained"
    if recipe["kind"] == "post_training":
        when = "while the finished models were fine-tuned"
    control = (
        f"The choice by {by.replace('_', ' ')} is itself a control: it knows nothing of "
        "memorization."
    )
    if by not in _CONTROLS:
        control = (
            "Not compared with as many samples chosen at random: a second run with mitigation.by: "
            "random tells what the choice itself brings."
        )
    return [
        ("Treated", f"{_TREATMENTS[recipe['treatment']]}, {when}"),
        ("Chosen by", _CHOOSERS.get(by, by.replace("_", " "))),
        ("How many", "all that are listed" if by == "list" else many),
        ("Compared with", f"{recipe['references']}: same shards and design, plain training"),
        ("Control", control),
    ]
