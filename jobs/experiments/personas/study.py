"""Teach models facts of invented people, ask for them, and sum up what they recall."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from jobs.experiments.folder import claim_folder
from jobs.experiments.personas.data import (
    FIELDS,
    GROUP,
    Persona,
    make_personas,
    render,
    write_personas,
)
from jobs.experiments.trials import audit_here
from multimem_ray.evaluation.bootstrap import bootstrap_mean
from multimem_ray.metric import recall_hits
from multimem_ray.progress import Progress
from multimem_ray.report.tables import Table, write_page
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.setup import resolve
from multimem_ray.storage import Storage

KNOWN, STRANGERS = "known", "strangers"
KS = (1, 5)


@dataclass(frozen=True)
class Size:
    """How large the experiment is."""

    people: int  # in all; each model is trained on nearly half of them
    meetings: int  # samples of each with face and voice
    tellings: int  # samples of each with the facts
    epochs: int  # of the training
    width: int  # of the towers for sound and pictures
    seeds: int  # of people, design and training
    asked: int  # new renderings of each person that are asked with


QUICK = Size(people=64, meetings=8, tellings=8, epochs=40, width=8, seeds=2, asked=4)
FULL = Size(people=256, meetings=16, tellings=16, epochs=80, width=16, seeds=5, asked=8)


@dataclass(frozen=True)
class Condition:
    """Whence facts are told, and whether faces were met with their own voices."""

    name: str
    about: str
    sources: tuple[str, ...]
    own_voice: bool = True

    @property
    def asked(self) -> Mapping[str, str]:
        """Modality → its role."""
        return {name: "source" if name in self.sources else "target" for name in ("image", "audio")}


CONDITIONS = (
    Condition("face", "told by the face, met with the voice", ("image",)),
    Condition("voice", "told by the voice, met with the face", ("audio",)),
    Condition("apart", "told by the face, met with anybody's voice", ("image",), own_voice=False),
    Condition("both", "told by the face and by the voice", ("image", "audio")),
)


def run_all(out: Path, size: Size, progress: Progress, threads: int = 2) -> dict[str, Any]:
    """Every condition and seed, summed up.

    Returns:
        ``size`` and, per condition, its estimates; also written to ``personas.json``.
    """
    claim_folder(out, {name: value for name, value in asdict(size).items() if name != "seeds"})
    summary: dict[str, Any] = {}
    total = size.seeds * len(CONDITIONS)
    with progress.task("personas", total, unit="trainings") as shown:
        for number, condition in enumerate(CONDITIONS):
            seeds = []
            for seed in range(size.seeds):
                seeds.append(_trial(out, condition, size, seed, threads))
                shown.update(number * size.seeds + seed + 1)
            summary[condition.name] = _summed_up(condition, seeds)
    content = {"size": asdict(size), "conditions": summary}
    (out / "personas.json").write_text(json.dumps(content, indent=1))
    tables = [recall_table(summary), memory_table(summary)]
    url = write_page(str(out / "personas.html"), Storage(), "Memory across modalities", tables)
    progress.say(f"tables: {url}")
    return content


def recall_table(summary: Mapping[str, Any]) -> Table:
    """What is recalled through the source, through the target, and the gap."""
    rows = []
    for condition in CONDITIONS:
        for name, role in condition.asked.items():
            for who in (KNOWN, STRANGERS):
                one = summary[condition.name]["recall"][name][who]
                cells = [_shown(one[f"R@{k}"]) for k in KS]
                chance = 100 / one["candidates"]
                rows.append([condition.about, name, role, who, *cells, f"{chance:.1f}"])
        gap = summary[condition.name]["gap"]
        if gap is not None:
            rows.append(
                [condition.about, "", "gap", KNOWN, *(_shown(gap[f"R@{k}"]) for k in KS), ""]
            )
    return Table(
        "Facts recalled, % [95 % interval over people]",
        ["facts", "asked by", "which is", "people", *(f"R@{k}" for k in KS), "R@1 by chance"],
        rows,
        "Strangers are people whose facts the model was never told: they can be found by chance "
        "alone. Queries are pictures and recordings that no model was trained on.",
    )


def memory_table(summary: Mapping[str, Any]) -> Table:
    """MultiMem of the samples that a fact was learned from."""
    rows = []
    for condition in CONDITIONS:
        for kind, estimate in summary[condition.name]["multimem"].items():
            rows.append([condition.about, kind, *_interval(estimate)])
    return Table(
        "MultiMem",
        ["facts", "samples", "mean", "from", "to"],
        rows,
        "Interval over people. Recalled and forgotten: the facts of people whom the target "
        "modality finds in most of its renderings, or does not.",
    )


def _trial(out: Path, condition: Condition, size: Size, seed: int, threads: int) -> dict[str, Any]:
    place = out / f"seed-{seed}" / condition.name
    done = place / "trial.json"
    if done.exists():
        record: dict[str, Any] = json.loads(done.read_text())
        return record
    people = make_personas(seed, size.people)
    shards = place / "shards"
    samples = (condition.sources, size.meetings, size.tellings)
    write_personas(shards, people, *samples, own_voice=condition.own_voice)
    config = resolve(_config(place, shards, size, seed, threads))
    run = audit_here(config, Progress(Console(quiet=True)))
    record = {"recall": _recall(run, people, condition, size.asked), "multimem": _multimem(run)}
    done.write_text(json.dumps(record, indent=1))
    return record


def _config(place: Path, shards: Path, size: Size, seed: int, threads: int) -> dict[str, Any]:
    return {
        "output": str(place / "run"),
        "data": {"shards": str(shards / "*.tar"), "fields": FIELDS},
        "held_out": {"fraction": 0.1},
        "design": {"models": 2, "seed": seed, "group": GROUP},
        "model": {"towers": {name: {"width": size.width} for name in ("audio", "image")}},
        "training": {"epochs": size.epochs, "seed": seed, "checkpoint_every_s": 1e9},
        "scoring": {"views": 2},
        "resources": {"cache_dir": str(place / "cache"), "train": {"cpus": threads}},
    }


def _recall(
    run: Run, people: Sequence[Persona], condition: Condition, asked: int
) -> dict[str, dict[str, Any]]:
    """Modality → known or strangers → hits per person, over models and renderings."""
    bank = ScoringBank(run, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    names = [p.name for p in people]
    held_out = run.held_out_rule.is_held_out(names, "")
    member = run.design.members(names)
    # (M, asked, N, n, d)
    embedded = torch.stack([_embedded(run, bank, people, draw) for draw in range(asked)], dim=1)
    text = run.modalities.index("text")
    recall: dict[str, dict[str, Any]] = {}
    for name in condition.asked:
        place = run.modalities.index(name)
        recall[name] = {}
        for who in (KNOWN, STRANGERS):
            hits: dict[str, list[list[float]]] = {}
            sizes = []
            for number in range(member.shape[1]):
                inside = (member[:, number] if who == KNOWN else ~member[:, number]) & ~held_out
                rows = np.flatnonzero(inside)
                sizes.append(len(rows))
                # Sheets of one wording, asked by every new rendering.
                sheets = embedded[number, 0, rows, text]
                drawn = [
                    recall_hits(embedded[number, draw, rows, place], sheets, KS).double()
                    for draw in range(asked)
                ]
                for row, values in zip(rows, torch.stack(drawn).mean(0).tolist(), strict=True):
                    hits.setdefault(names[row], []).append(values)
            means = {person: np.mean(values, axis=0).tolist() for person, values in hits.items()}
            recall[name][who] = {"hits": means, "candidates": float(np.mean(sizes))}
    return recall


def _embedded(run: Run, bank: ScoringBank, people: Sequence[Persona], draw: int) -> torch.Tensor:
    """(M, N, n, d), of pictures, recordings and wordings that were never trained on."""
    decoded = []
    for persona in people:
        rng = np.random.default_rng([persona.seed, persona.number, 1 + draw])
        members = render(persona, run.modalities, rng)
        sample = Sample(persona.name, "", 0, members)
        decoded.append(run.decoder.decode(sample))
    return bank.embed(run.decoder.clean(decoded))[:, 0].cpu().clone()


def _multimem(run: Run) -> list[tuple[str, str, float]]:
    """(person, kind, MultiMem) of every scored sample."""
    rows = []
    for batch in ScoreTable(run.output, run.storage).batches(["key", "multimem"]):
        for key, score in zip(batch["key"].to_pylist(), batch["multimem"].to_pylist(), strict=True):
            if score is not None:
                person, kind, _ = key.rsplit("-", 2)
                rows.append((person, kind, score))
    return rows


def _summed_up(condition: Condition, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recall: dict[str, Any] = {}
    for name in condition.asked:
        recall[name] = {}
        for who in (KNOWN, STRANGERS):
            values = np.concatenate([_values(seed["recall"][name][who]) for seed in seeds])
            recall[name][who] = {
                **_estimates(values),
                "candidates": float(np.mean([s["recall"][name][who]["candidates"] for s in seeds])),
            }
    gap = None
    roles = {role: name for name, role in condition.asked.items()}
    if set(roles) == {"source", "target"}:
        of_role = {
            role: np.concatenate([_values(seed["recall"][name][KNOWN]) for seed in seeds])
            for role, name in roles.items()
        }
        gap = _estimates(of_role["source"] - of_role["target"])
    return {
        "about": condition.about,
        "recall": recall,
        "gap": gap,
        "multimem": _memory(seeds, roles.get("target")),
    }


def _memory(seeds: Sequence[Mapping[str, Any]], target: str | None) -> dict[str, Any]:
    # A person's samples are near-copies of each other, so it is people that are drawn again.
    kinds: dict[str, dict[tuple[int, str], list[float]]] = {}
    for number, seed in enumerate(seeds):
        hits = seed["recall"][target][KNOWN]["hits"] if target is not None else {}
        for person, kind, score in seed["multimem"]:
            names = [kind]
            if kind == "facts" and person in hits:
                names.append("facts, recalled" if hits[person][0] > 0.5 else "facts, forgotten")
            for name in names:
                kinds.setdefault(name, {}).setdefault((number, person), []).append(score)
    return {
        kind: bootstrap_mean(np.array([np.mean(own) for own in people.values()])).as_dict()
        for kind, people in sorted(kinds.items())
    }


def _values(recall: Mapping[str, Any]) -> NDArray[np.float64]:
    """(N, K) hits, person by person in one order."""
    return np.array([recall["hits"][person] for person in sorted(recall["hits"])])


def _estimates(values: NDArray[np.float64]) -> dict[str, Any]:
    return {f"R@{k}": bootstrap_mean(values[:, i]).as_dict() for i, k in enumerate(KS)}


def _interval(estimate: Mapping[str, Any]) -> list[float]:
    return [estimate["value"], estimate["low"], estimate["high"]]


def _shown(estimate: Mapping[str, Any]) -> str:
    value, low, high = (100 * number for number in _interval(estimate))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
