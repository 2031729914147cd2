"""A section for a data card: what was audited, how, what came out with intervals, and its limits.

Everything is taken from the run; names that came out of shards are made harmless for Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

from multimem_ray.foreign_text import line
from multimem_ray.report import text
from multimem_ray.results.attack import attack_words
from multimem_ray.results.domains import Domains, catalogued_domains, domains
from multimem_ray.results.duplicates import duplicate_words
from multimem_ray.results.reliability import reliability_words
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.terminal import null_words

SHOWN = 10
LIMITS = (
    (
        "The scores are of the reference models that were trained for this audit; a model of "
        "another architecture or another training may memorize other samples."
    ),
    "A low score proves nothing: what these models did not learn by heart, a larger one may.",
    (
        "A high score says that a sample's own modalities fit together better for models that saw "
        "it. It is no proof that its content can be drawn out of a model."
    ),
    "Held-out samples and those that could not be read have no score.",
)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


@dataclass(frozen=True)
class Findings:
    """What a card tells of a run.

    Args:
        table: Its scores; there must be some.
    """

    table: ScoreTable

    @cached_property
    def run(self) -> dict[str, Any]:
        """``run.json``."""
        return self.table.document("run.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The summary of the rows that are there now."""
        known = self.table.document("summary.json")
        if (known.get("verdict") or {}).get("of") == self.table.version:
            return known
        planted = (self.config.get("data") or {}).get("planted")
        return summarize(self.table, planted=planted)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.run.get("config") or {}

    @cached_property
    def by_domain(self) -> list[Domains]:
        """By label, and by what is catalogued."""
        labelled = bool(self.summary["labels"]["groups"])
        of_labels = [domains(self.table, "label")] if labelled else []
        return [*of_labels, *catalogued_domains(self.table)]

    @cached_property
    def whole(self) -> Domains | None:
        """All samples, by what they have; None where none has a MultiMem."""
        scores = self.summary["scores"].get("multimem") or {}
        return domains(self.table, "modalities") if scores.get("count") else None

    @property
    def audited(self) -> list[str]:
        """What was audited, in sentences."""
        cover, shards = self.summary["coverage"], (self.config.get("data") or {}).get("shards")
        names = shards if isinstance(shards, list) else [shards or "stored embeddings"]
        present = self.summary["modalities"]["present"]
        with_ = ", ".join(f"{name} ({count:,})" for name, count in present.items() if name)
        return [
            f"Data: {', '.join(map(line, names[:5]))}{' …' if len(names) > 5 else ''}.",
            (
                f"{text.plural(cover['samples'], 'sample')}: {cover['scored']:,} scored, "
                f"{cover['held_out']:,} held out, {cover['errors']:,} that could not be used."
            ),
            f"Modalities of the scored: {with_}.",
        ]

    @property
    def method(self) -> list[str]:
        """How, in sentences."""
        design, training = self.summary["design"], self.config.get("training") or {}
        kind = str(design.get("kind")).replace("_", " ")
        together = f"; kept together by {design['group']}" if design.get("group") else ""
        epochs = "" if (self.config.get("data") or {}).get("embeddings") else training.get("epochs")
        return [
            (
                "MultiMem (arXiv 2606.22220): how much better the modalities of a sample fit "
                "together for models that trained on it than for models that did not."
            ),
            f"{text.count(design.get('models'))} reference models, design {kind}{together}"
            + (f", {epochs} epochs." if epochs else "."),
            (
                f"multimem_ray {metadata.version('multimem-ray')}, run "
                f"{self.run.get('fingerprint')}, started {text.when(self.run.get('started_at'))}."
            ),
        ]

    @property
    def results(self) -> list[str]:
        """What came out, in sentences."""
        told = [text.headline(self.summary)]
        if self.whole is not None:
            of = self.whole.whole
            told.append(
                f"Mean MultiMem {_number(of['mean'], of['low'], of['high'])}; "
                f"{_percent(of['share'], of['share_low'], of['share_high'])} of the samples are "
                f"listed as {self.whole.listed}."
            )
        told += [
            f"{one[0].upper()}{one[1:]}." for one in reliability_words(self.summary["reliability"])
        ]
        told += null_words(self.summary["noise"])
        told += attack_words(self.summary.get("attack"))
        copies = duplicate_words(self.summary.get("duplicates"))
        return [*told, *([copies] if copies else []), *self._planted]

    @property
    def _planted(self) -> list[str]:
        planted = self.summary.get("planted")
        found = ((planted or {}).get("methods") or {}).get("multimem") or {}
        if not planted or found.get("auroc") is None:
            return []
        return [
            (
                f"Of {planted['planted']} samples with a planted mistake among "
                f"{planted['samples']:,}, "
                "MultiMem finds them with an AUROC of "
                f"{_number(found['auroc'], found['low'], found['high'])}."
            )
        ]

    @property
    def limits(self) -> list[str]:
        """What must be known before single numbers are trusted."""
        return [*text.cautions(self.summary), *LIMITS]

    @property
    def missing(self) -> list[str]:
        """What has no score, by reason."""
        cover = self.summary["coverage"]
        kinds = [f"{k['count']:,} {k['stage']}/{k['error']}" for k in cover["errors_by"]]
        shards = cover["shards"]["missing"]
        lost = [f"{text.plural(len(shards), 'shard')} that were named and not there"]
        return [*kinds, *(lost if shards else [])]


def card(found: Findings) -> str:
    """The section, in Markdown."""
    parts = ["## Memorization audit", ""]
    for title, sentences in (
        ("What was audited", found.audited),
        ("How", found.method),
        ("Results", found.results),
        ("What has no score", found.missing),
        ("Limits", found.limits),
    ):
        if sentences:
            parts += [f"### {title}", "", *(f"- {_plain(one)}" for one in sentences), ""]
        if title == "Results":
            for made in found.by_domain:
                parts += [*_table(made), ""]
    return "\n".join(parts).rstrip() + "\n"


def _table(made: Domains) -> list[str]:
    rows = made.table.slice(0, SHOWN).to_pylist()
    more = f", the first {SHOWN} of {len(made.table):,} values" if len(made.table) > SHOWN else ""
    lines = [
        (
            f"By {_plain(made.by)}{more}, by the shrunk mean (drawn towards all where there are "
            "few samples); 95 % intervals."
        ),
        "",
        "| value | samples | mean MultiMem | shrunk | listed |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        value = "(none)" if row["value"] is None else _plain(line(row["value"], 60))
        cells: Sequence[str] = (
            value,
            f"{row['samples']:,}",
            _number(row["mean"], row["low"], row["high"]),
            text.number(row["shrunk"]),
            _percent(row["share"], row["share_low"], row["share_high"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(value: float | None, low: float | None, high: float | None) -> str:
    interval = "" if low is None else f" ({text.number(low)} to {text.number(high)})"
    return text.number(value) + interval


def _percent(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return text.percent(value)
    return f"{text.percent(value)} ({100 * low:.1f} to {100 * high:.1f})"


def _plain(words: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", line(words))


def front_matter(found: Findings, about: Mapping[str, Any]) -> str:
    """The head of a Hugging Face dataset card, which says where its tables lie."""
    import yaml

    told = {
        **about,
        "tags": ["memorization", "multimodal"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
        ],
    }
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True)}---\n"
