"""Draws the page: one HTML file that needs no network, no fonts and no script to be read.

Everything that came out of a shard or a configuration passes through the template's escaping. The
style sheet and the small script (sorting and finding) are the package's own; a security policy in
the page names them by their hash and forbids all else, so that even a flaw in the escaping could
load or run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from multimem_ray.foreign_text import visible
from multimem_ray.report import svg, text
from multimem_ray.report.outcome import evaluation_rows, mitigation_verdict
from multimem_ray.report.samples import Content, Place
from multimem_ray.report.why import doubt, misfit_words, standing
from multimem_ray.results.attack import attack_words
from multimem_ray.results.domains import Domains
from multimem_ray.results.duplicates import duplicate_words

MODALITY_COLOURS = {"image": "m0", "audio": "m1", "video": "m2", "text": "m3"}
METHOD_NAMES = {
    "multimem": "MultiMem, high",
    "cmc_out": "cmc_out, low: asked of models that never saw it",
    "one_model": "one model that trained on it, low: the usual filter",
}
METHOD_COLOURS = {"multimem": "k0", "cmc_out": "k1", "one_model": "k2"}
PERCENTILES = (("0.5", "median"), ("0.95", "95 %"), ("0.99", "99 %"))
SHOWN_LABELS = 40


@dataclass(frozen=True)
class RunView:
    """Everything the page shows.

    Attributes:
        summary: What :func:`multimem_ray.results.summary.summarize` returned.
        run: The run's ``run.json``.
        top: Score rows with the highest MultiMem, best first.
        low: Score rows with the lowest ``cmc_out``, lowest first.
        contents: What to show of those samples, by shard and key.
        planted: What was planted in those of them that were tampered with on purpose.
        domains: Means by the values of some fields.
        evaluation: The run's ``evaluation.json``; empty without one.
        mitigation: The run's ``mitigation.json``; empty without one.
        title: Heading of the page.
    """

    summary: Mapping[str, Any]
    run: Mapping[str, Any]
    top: Sequence[Mapping[str, Any]] = ()
    low: Sequence[Mapping[str, Any]] = ()
    contents: Mapping[Place, Sequence[Content]] = field(default_factory=dict)
    planted: Mapping[Place, str] = field(default_factory=dict)
    domains: Sequence[Domains] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    mitigation: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True)
class Card:
    """One sample of the page."""

    rank: int
    key: str
    shard: str
    score: str
    se: str | None
    sides: str
    doubt: str
    misfit: str
    certain: bool
    standing: str
    label: str | None
    planted: str | None
    contents: Sequence[Content]
    bars: Markup
    words: str


def render(view: RunView) -> str:
    """The page as HTML."""
    style, script = asset("page.css"), asset("page.js")
    summary = dict(view.summary)
    return template("template.html").render(
        title=visible(view.title or "Memorization audit", 120),
        policy=security_policy(style, script),
        style=Markup(style),  # noqa: S704 - the package's own file
        script=Markup(script),  # noqa: S704 - the package's own file
        s=summary,
        run=view.run,
        headline=text.headline(summary),
        cautions=text.cautions(summary),
        tiles=_tiles(summary),
        figures=_figures(view),
        top=_cards(view, view.top, "multimem"),
        evaluation=evaluation_rows(view.evaluation),
        mitigation=mitigation_verdict(view.mitigation),
        low=_cards(view, view.low, "cmc_out"),
        colour=colour,
        methods=METHOD_NAMES,
        method_colours=METHOD_COLOURS,
        labels=_labels(summary),
        domains=[(made, _both_ends(made.table.to_pylist())) for made in view.domains],
        settings=_settings(view),
        w=text,
        waveform=svg.waveform,
        duplicates=duplicate_words,
        attack=attack_words,
    )


def colour(modality: str) -> str:
    """The style class of a modality; one that is not built in gets one of four more by its name."""
    if modality in MODALITY_COLOURS:
        return MODALITY_COLOURS[modality]
    return f"m{4 + hashlib.blake2b(modality.encode(), digest_size=1).digest()[0] % 4}"


def _figures(view: RunView) -> dict[str, Markup | None]:
    summary = view.summary
    histogram, cloud = summary["histograms"].get("multimem"), summary["plane"]
    quantiles = (summary["scores"].get("multimem") or {}).get("quantiles") or {}
    marks = [(quantiles[f], name) for f, name in PERCENTILES if f in quantiles]
    by_modality = [
        (row["modality"], row["mean"], colour(row["modality"]))
        for row in summary["attribution"]
        if row["mean"] is not None
    ]
    by_pair = [(" + ".join(row["pair"]), row["mean"]) for row in summary["pairs"]]
    by_pair.sort(key=lambda row: -row[1])
    return {
        "histogram": svg.histogram(histogram, marks, "MultiMem") if histogram else None,
        "plane": svg.plane(cloud, _rings(view)) if cloud else None,
        "attribution": svg.signed_bars(by_modality, "MultiMem by modality", width=svg.WIDTH)
        if by_modality
        else None,
        "pairs": svg.signed_bars(
            [(name, value, "k0") for name, value in by_pair],
            "MultiMem by pair",
            width=svg.WIDTH,
            left=118,
        )
        if len(by_pair) > 1
        else None,
        **_planted_figures(summary["planted"]),
    }


def _rings(view: RunView) -> list[tuple[float, float, str, str]]:
    rings = []
    for rows, kind, what in (
        (view.low, "ring low", "misfit"),
        (view.top, "ring top", "high MultiMem"),
    ):
        for row in rows:
            if row.get("cmc_in") is not None and row.get("cmc_out") is not None:
                hint = f"{what}: {visible(str(row['key']), 60)}"
                rings.append((float(row["cmc_out"]), float(row["cmc_in"]), kind, hint))
    return rings


def _planted_figures(planted: Mapping[str, Any] | None) -> dict[str, Markup | None]:
    judged = {
        name: method
        for name, method in ((planted or {}).get("methods") or {}).items()
        if method and method["auroc"] is not None
    }
    if not judged:
        return {"auroc": None, "roc": None}
    rows = [
        (METHOD_NAMES[n], m["auroc"], m["low"], m["high"], METHOD_COLOURS[n])
        for n, m in judged.items()
    ]
    curves = [(METHOD_NAMES[n], m["roc"], METHOD_COLOURS[n]) for n, m in judged.items()]
    # The best method is drawn last, over the others.
    curves.sort(key=lambda c: c[2] == "k0")
    return {"auroc": svg.intervals(rows), "roc": svg.roc(curves)}


def _cards(view: RunView, rows: Sequence[Mapping[str, Any]], column: str) -> list[Card]:
    total = (view.summary["scores"].get(column) or {}).get("count") or 0
    return [_card(view, row, rank, column, total) for rank, row in enumerate(rows, 1)]


def _card(view: RunView, row: Mapping[str, Any], rank: int, column: str, total: int) -> Card:
    place = (str(row["shard"]), str(row["key"]))
    parts = [
        (name, row[f"attribution_{name}"], colour(name))
        for name in view.summary["modalities"]["names"]
        if row.get(f"attribution_{name}") is not None
    ]
    contents = view.contents.get(place, ())
    label = None if row.get("label") is None else visible(str(row["label"]), 60)
    key = visible(place[1], 160)
    found = " ".join(line for c in contents if c.kind == "text" for line in c.lines)
    se = row.get("multimem_error") if column == "multimem" else None
    memorized = column == "multimem"
    other = row.get("cmc_out") if memorized else row.get("multimem")
    return Card(
        rank=rank,
        key=key,
        shard=visible(place[0], 300),
        score=text.number(row.get(column)),
        se=None if se is None else text.number(se),
        sides=_shrunk(row, memorized) + f"{'cmc_out' if memorized else 'MultiMem'} "
        f"{text.number(other)}",
        doubt=doubt(row) if memorized else "",
        misfit=misfit_words(row, view.summary["modalities"]["names"]),
        certain=standing(row) == "memorized",
        standing=_standing(rank, total, "higher" if memorized else "lower"),
        label=label,
        planted=view.planted.get(place),
        contents=contents,
        bars=svg.signed_bars(parts, "What each modality adds to MultiMem", width=230, left=50)
        if parts
        else Markup(""),
        words=f"{key} {label or ''} {found}".lower()[:1000],
    )


def _shrunk(row: Mapping[str, Any], memorized: bool) -> str:
    """What is expected of very many models, where that is known."""
    if not memorized or row.get("multimem_shrunk") is None:
        return ""
    shown = f"{text.number(row['multimem_shrunk'])} ± {text.number(row['multimem_shrunk_sd'])}"
    return f"shrunk {shown}, "


def _standing(rank: int, total: int, direction: str) -> str:
    """Exact: a card's rank among all samples with the score."""
    if total < 2:
        return ""
    return f"{direction} than {text.percent((total - rank) / total, 2 if total >= 1000 else 1)}"


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Value, name and a word of explanation for each headline number."""
    cover, noise = summary["coverage"], summary["noise"]
    scores, ranks = summary["scores"], ((summary["reliability"] or {}).get("ranks") or {})
    multimem = scores.get("multimem") or {}
    tiles = [(text.count(cover["scored"]), "samples scored", _rest(cover))]
    if multimem.get("count"):
        spread = f"spread over samples {text.number(multimem['std'])}"
        tiles.append((text.number(multimem["mean"]), "mean MultiMem", spread))
    if noise["count"]:
        chance = f"{text.percent(noise['by_chance'])} by chance"
        chance += ", measured on the held-out set" if noise.get("measured") else ""
        tiles.append((text.percent(noise["above"]), "interval above zero", chance))
    if ranks.get("multimem"):
        own = ranks["multimem"]
        interval = f"{text.number(own['low'], 2)} to {text.number(own['high'], 2)}"
        tiles.append(
            (
                text.number(own["value"], 2),
                "reliability of the ranking",
                f"1 = repeats itself; {interval}",
            )
        )
    ranked = [row for row in summary["attribution"] if row["mean"] is not None]
    if ranked:
        tiles.append((ranked[0]["modality"], *_lead(ranked)))
    planted = (summary["planted"] or {}).get("methods") or {}
    if (planted.get("multimem") or {}).get("auroc") is not None:
        found = text.number(planted["multimem"]["auroc"])
        tiles.append((found, "AUROC on planted samples", "1 = finds them all first"))
    return tiles


def _lead(ranked: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What the first modality may be called, and by how much it leads."""
    first, adds = ranked[0], f"adds {text.number(ranked[0]['mean'])} on average"
    if len(ranked) > 1 and first["std"] is not None and ranked[1]["std"] is not None:
        second = ranked[1]
        noise = math.sqrt(first["std"] ** 2 / first["count"] + second["std"] ** 2 / second["count"])
        if first["mean"] - second["mean"] < 2 * noise:
            return "modality with the highest mean", f"hardly ahead of {second['modality']}"
    if first["mean"] <= 0:
        return "modality with the highest mean", adds
    return "most memorized modality", adds


def _rest(cover: Mapping[str, Any]) -> str:
    errors = text.plural(cover["errors"], "error")
    return f"{text.count(cover['held_out'])} held out, {errors}"


def _labels(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The labels at both ends where there are too many for a page."""
    return _both_ends(list(summary["labels"]["groups"]))


def _both_ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(rows) <= SHOWN_LABELS:
        return rows
    return rows[: SHOWN_LABELS // 2] + rows[-SHOWN_LABELS // 2 :]


def _settings(view: RunView) -> list[tuple[str, str]]:
    """What was audited, and how, as far as ``run.json`` tells."""
    run, config = view.run, view.run.get("config") or {}
    data, training = config.get("data") or {}, config.get("training") or {}
    scoring, model = config.get("scoring") or {}, config.get("model") or {}
    design = view.summary["design"]
    shards, stored = data.get("shards"), bool(data.get("embeddings"))
    fields = run.get("fields") or {}
    rows = [
        ("Embeddings", "stored; no samples are shown" if stored else ""),
        ("Shards", ", ".join(shards) if isinstance(shards, list) else shards),
        ("Modalities", ", ".join(f"{name} ({fields[name]})" for name in sorted(fields))),
        ("Design", _design(design)),
        ("Target", _target(design)),
        ("Held-out set", _held_out(view.summary.get("held_out") or {})),
        ("Reference model", _joined(model, ("preset", "dim"))),
        ("Training", "" if stored else _joined(training, ("epochs", "batch_size", "lr"))),
        ("Scoring", _joined(scoring, ("views",))),
        ("Label", run.get("label")),
        ("Started", text.when(run.get("started_at"))),
        ("Fingerprint", run.get("fingerprint")),
        ("Versions", ", ".join(f"{k} {v}" for k, v in (run.get("versions") or {}).items())),
    ]
    return [(name, visible(str(value), 500)) for name, value in rows if value]


def _design(design: Mapping[str, Any]) -> str:
    kind = str(design.get("kind") or "").replace("_", " ")
    group = f", kept together by {design['group']}" if design.get("group") else ""
    return f"{kind}, {text.count(design.get('models'))} models{group}" if kind else ""


def _target(design: Mapping[str, Any]) -> str:
    target = design.get("target")
    return f"{target['checkpoint']}, trained on: {target['members']}" if target else ""


def _held_out(held: Mapping[str, Any]) -> str:
    return f"{text.plural(int(held['samples']), 'sample')}" if held.get("samples") else ""


def _joined(section: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{n.replace('_', ' ')} {section[n]}" for n in names if section.get(n))


def security_policy(style: str, script: str) -> str:
    """A content security policy: the two inline parts by their hash, media inside the page."""
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def asset(name: str) -> str:
    """A file of the package beside this one."""
    return resources.files("multimem_ray.report").joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> jinja2.Template:
    """A template of the package, which escapes all that it is given."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
