"""Numbers and findings in words: what the page says besides its figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from multimem_ray.foreign_text import visible  # noqa: F401 - the templates find it here
from multimem_ray.results.blend import blend_words  # noqa: F401 - likewise
from multimem_ray.results.growth import growth_words  # noqa: F401 - likewise
from multimem_ray.results.reliability import reliability_words  # noqa: F401 - likewise
from multimem_ray.results.terminal import null_words  # noqa: F401 - likewise

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A signed decimal with a true minus sign; a dash where it is undefined."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def count(value: int | None) -> str:
    """A whole number in groups of three."""
    return DASH if value is None else f"{value:,}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share (0..1) as a percentage; never rounded up to 100 nor down to 0."""
    if share is None:
        return DASH
    text = f"{100 * share:.{digits}f}"
    if share < 1 and float(text) == 100:
        return f"> {100 - 10**-digits:.{digits}f} %"
    if share > 0 and float(text) == 0:
        return f"< {10**-digits:.{digits}f} %"
    return f"{text} %"


def plural(value: int, one: str, many: str | None = None) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def when(seconds: float | None) -> str:
    """A Unix time as a date, UTC."""
    if seconds is None:
        return DASH
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


_OUTSIDE = "lie outside the pool that models trained on: "


def headline(summary: dict[str, Any]) -> str:
    """The finding in one or two sentences."""
    cover, noise = summary["coverage"], summary["noise"]
    models = summary["design"].get("models")
    if not cover["scored"]:
        return "No sample has been scored yet."
    start = f"{plural(cover['scored'], 'sample')} scored with {count(models)} reference models."
    if summary.get("target"):
        models_and = f"against {count(models)} reference models"
        start = f"{plural(cover['scored'], 'sample')} scored: the target {models_and}."
    if not noise["count"]:
        return start
    out = round(noise["above"] * noise["count"])
    whom = "them"
    if noise["count"] < cover["scored"]:
        whom = f"the {count(noise['count'])} with an interval"
    return (
        f"{start} {count(out)} of {whom} ({percent(noise['above'])}) were memorized: their 95 % "
        f"interval lies above zero. {_by_chance(noise)}"
    )


def _by_chance(noise: dict[str, Any]) -> str:
    share = percent(noise["by_chance"])
    if noise.get("measured"):
        return f"Of held-out samples, which no model saw, {share} would stand there."
    return f"Noise alone would put about {share} there."


def cautions(summary: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting single numbers, most important first."""
    return [
        *_about_completeness(summary["coverage"]),
        *_about_target(summary),
        *_about_models(summary),
        *_about_losses(summary["coverage"]),
        *_about_levels(summary),
        *_about_design(summary),
    ]


def _about_completeness(cover: dict[str, Any]) -> list[str]:
    found = [f"The sums do not agree: {problem}." for problem in cover["disagreements"]]
    shards = cover["shards"]
    if shards["pending"]:
        found.append(
            f"The run is not finished: {plural(shards['pending'], 'shard')} of "
            f"{count(shards['named'])} not scored yet. Start it again and it does what is missing."
        )
    return found


def _about_losses(cover: dict[str, Any]) -> list[str]:
    found, shards = [], cover["shards"]
    if shards["missing"]:
        found.append(
            f"{plural(len(shards['missing']), 'shard')} named in the configuration "
            f"{'was' if len(shards['missing']) == 1 else 'were'} not there, such as "
            f"{shards['missing'][0]}."
        )
    if cover["damaged"]:
        found.append(
            f"Damage to shards was met {plural(cover['damaged'], 'time')}; samples behind it "
            "cannot be counted."
        )
    return found


def _about_target(summary: dict[str, Any]) -> list[str]:
    target = summary.get("target")
    if not target or target["gap"] is None:
        return []
    error = "" if target["gap_se"] is None else f" ± {number(target['gap_se'])}"
    said = (
        f"On {plural(target['held_out'], 'held-out sample')} that neither saw, the target is "
        f"{number(target['gap'])}{error} more consistent than the references. This gap says how "
        "they differ and nothing of memorization: it is subtracted from every score, and its error "
        "is part of theirs. A gap that depends on the kind of sample remains."
    )
    return [said]


def _about_models(summary: dict[str, Any]) -> list[str]:
    models, noise = summary["design"].get("models"), summary["noise"]
    ranks = ((summary["reliability"] or {}).get("ranks") or {}).get("multimem")
    if models is None or not summary["coverage"]["scored"]:
        return []
    if not noise["count"] and not summary.get("target"):
        remedy = "Four models give a standard error, eight a steadier ranking."
        if summary["design"].get("kind") == "leave_subset_out":
            remedy = "The design complementary_halves leaves each sample out of half of the models."
        alone = (
            "One side of the comparison is a single model: there is no standard error, and single "
            f"samples are not reliable. Means over many samples are. {remedy}"
        )
        return [alone]
    found = []
    if ranks and ranks["value"] < 0.7:
        found.append(
            "The ranking is noisy: that of as many new models would correlate with it at only "
            f"{number(ranks['value'], 2)}. Read the list as candidates; more models make it "
            "steadier."
        )
    if models <= 4 and not summary.get("target") and summary["verdict"]["prior"]["df"] == 0:
        found.append(
            f"With {count(models)} models and so few samples a standard error rests on two values "
            "a side, and is itself rough."
        )
    return found


def _about_levels(summary: dict[str, Any]) -> list[str]:
    if summary.get("target"):
        return []
    gaps = [m["level_gap"] for m in summary["models"] if m["level_gap"] is not None]
    mean = (summary["scores"].get("multimem") or {}).get("mean")
    if len(gaps) < 2 or mean is None:
        return []
    spread = max(gaps) - min(gaps)
    if spread <= abs(mean) / 2:
        return []
    words = (
        f"The models differ in level by up to {number(spread)} on samples that none of them saw, "
        f"against a mean MultiMem of {number(mean)}. The ranking hardly changes by it; do not "
        "compare this mean with that of another run."
    )
    return [words]


def _about_design(summary: dict[str, Any]) -> list[str]:
    design, scores = summary["design"], summary["scores"]
    found = []
    if design.get("kind") == "candidate":
        found.append(
            "In the candidate design only S_C (score above 0) and S_I (its mirror image) tell "
            "about memorization. S_S was seen by both sides and shows the noise."
        )
    defined = (scores.get("multimem") or {}).get("count")
    scored = summary["coverage"]["scored"]
    if scored and defined is not None and defined < scored:
        found.append(
            f"{plural(scored - defined, 'sample')} "
            + ("were not seen by the target: " if summary.get("target") else _OUTSIDE)
            + "they have an out-of-sample consistency and no MultiMem."
        )
    group = design.get("group")
    if scored and not group:
        found.append(
            "No group field was set (design.group: key): copies of one thing that fall on both "
            "sides of a split hide each other's memorization."
        )
    if scored and group == "content":
        found.append(
            "Exact copies were left out together, near-duplicates were not: where they fall on "
            "both sides of a split they hide each other's memorization. design.group takes a table "
            "of what belongs together."
        )
    return found
