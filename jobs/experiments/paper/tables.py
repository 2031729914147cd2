"""The papers' tables, one function each: run what it takes, and say whether it agrees."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from jobs.experiments.paper import published
from jobs.experiments.paper.findings import Finding, Section
from jobs.experiments.paper.mitigation import both, in_training, noise_by_modality, removal
from jobs.experiments.paper.recipes import PLAIN, candidate, seeded
from jobs.experiments.paper.study import Study
from jobs.experiments.trials import mean_se
from multimem_ray.arrow_files import ParquetFile
from multimem_ray.report.tables import Table
from multimem_ray.results.statistics import auroc
from multimem_ray.run import Run

SPLITS = ("S_C", "S_I", "S_S")


def global_and_pairs(study: Study) -> Section:
    """MultiMem of all modalities and of pairs, by split (Fig. 1)."""
    pairs = {f"pair_{a}_{b}": f"{a}+{b}" for a, b in combinations(study.data.names, 2)}
    columns = {"multimem_normalized": "all", **pairs}
    runs = [study.run(f"candidate-{n}", *candidate(0.25), *seeded(n)) for n in study.seeds]
    means = [_split_means(study, run, list(columns)) for run in runs]
    rows: list[list[Any]] = []
    for column, name in columns.items():
        ours = np.mean([np.array(own[column], float) for own in means], axis=0)
        printed = published.SPLITS.get(name) if study.like_audioclip else None
        rows.append([name, *map(float, ours), *(printed or (None, None, None))])
    all_, parts = rows[0], rows[1:]
    shared = sum(row[1] for row in parts) / (len(study.data.names) - 1)
    headings = ["modalities", *SPLITS, *(f"{s}, published" for s in SPLITS)]
    findings = [
        Finding(
            "S_C is above 0, S_I below",
            all(r[1] > 0 > r[2] for r in rows),
            f"all: {all_[1]:.3f} / {all_[2]:.3f}",
        ),
        Finding(
            "S_S is near 0, a tenth of the distance between S_C and S_I at most",
            all(abs(r[3]) < 0.1 * (r[1] - r[2]) for r in rows),
            f"all: {all_[3]:.3f}; what is left is the difference in level of so few models",
        ),
        Finding(
            "S_C and S_I lie on two sides of S_S",
            all(r[1] > r[3] > r[2] for r in rows),
            f"all: {all_[1] - all_[3]:+.3f} / {all_[2] - all_[3]:+.3f}",
        ),
        Finding(
            "all modalities together = the sum of the pairs, by one less than the modalities",
            # But for what a modality alone adds, which every pair of it counts.
            abs(shared - all_[1]) < 0.1 * abs(all_[1]),
            f"{all_[1]:.3f} and {shared:.3f}",
        ),
    ]
    if len(parts) > 1:
        findings.append(
            Finding(
                "all modalities together score above each pair",
                all(all_[1] > row[1] for row in parts),
                ", ".join(f"{row[0]} {row[1]:.3f}" for row in parts),
            )
        )
    return Section("global and pairs", [Table("MultiMem by split", headings, rows)], findings)


def held_out_sets(study: Study) -> Section:
    """MultiMem under a random, a balanced and an out-of-distribution held-out set."""
    kinds: dict[str, tuple[str, ...]] = {"random": ()}
    if study.label is not None:
        balance = f"held_out.balance={study.label}"
        kinds["balanced by label"] = (balance, "held_out.max_samples=40")
    if study.other is not None:
        kinds["out of distribution"] = (f"held_out.shards={study.other}",)
    rows: list[list[Any]] = []
    scores: list[float] = []
    for number, (name, sets) in enumerate(kinds.items()):
        run = study.run(f"held-out-{number}", *candidate(0.25), *sets)
        rows.append([name, *_split_means(study, run, ["multimem"])["multimem"]])
        scores.append(rows[-1][1])
    spread = (max(scores) - min(scores)) / max(scores)
    table = Table(
        "MultiMem by held-out set",
        ["held-out set", *SPLITS],
        rows,
        "Where H is of other shards, the models also train on what would have been held out.",
    )
    holds = all(row[1] > 0 > row[2] for row in rows)
    finding = Finding(
        "the order of the splits does not depend on the held-out set", holds, f"{spread:.0%} spread"
    )
    return Section("held-out sets", [table], [finding])


def candidate_shares(study: Study) -> Section:
    """MultiMem by the shares of S_C and S_I, and by their ratio."""
    equal, ratios = (0.1, 0.25, 0.4), ((1, 3), (1, 1), (3, 1), (1, 0))
    shares = [(share, share) for share in equal]
    shares += [(0.4 * a / (a + b), 0.4 * b / (a + b)) for a, b in ratios]
    rows: list[list[Any]] = []
    for share, independent in shares:
        name = f"share-{share:.2f}-{independent:.2f}"
        run = study.run(name, *candidate(share, independent))
        means = _split_means(study, run, ["multimem"])["multimem"]
        rows.append([f"{share:.2f} : {independent:.2f}", *means])
    table = Table(
        "MultiMem by the size of S_C and S_I",
        ["S_C : S_I", *SPLITS],
        rows,
        "Shares of the data. Where they differ, f and g do not train on equally much, and S_S "
        "shows what that alone does.",
    )
    above = [row[1] - row[3] for row in rows]
    shifts = [row[3] for row in rows[len(equal) :]]
    return Section(
        "sizes of S_C and S_I",
        [table],
        [
            Finding(
                "S_C is memorized at every size: it lies above S_S, which has the models' own "
                "difference",
                min(above) > 0,
                ", ".join(f"{r[0]}: {value:+.3f}" for r, value in zip(rows, above, strict=True)),
            ),
            Finding(
                "S_S, which both sides saw, does not depend on the ratio, to a tenth of the "
                "distance between S_C and S_S",
                max(shifts) - min(shifts) < 0.1 * float(np.mean(above)),
                ", ".join(f"{a}:{b} {v:+.3f}" for (a, b), v in zip(ratios, shifts, strict=True)),
            ),
        ],
    )


def ranking_of_modalities(study: Study) -> Section:
    """What each modality adds to MultiMem."""
    study.trials([PLAIN])
    found: dict[str, list[float]] = {name: [] for name in study.data.names}
    for seed in study.seeds:
        summary = json.loads(
            (study.folder / "runs" / f"seed-{seed}" / "none" / "summary.json").read_text()
        )
        for row in summary["attribution"]:
            found[row["modality"]].append(row["mean"])
    rows: list[list[Any]] = [
        [name, *mean_se(dict(enumerate(numbers)))] for name, numbers in found.items()
    ]
    rows = sorted(rows, key=lambda row: -float(row[1]))
    ours = [row[0] for row in rows]
    theirs = [name for name in published.RANKING if name in ours]
    table = Table("Attribution of MultiMem", ["modality", "mean", "se over seeds"], rows)
    finding = Finding(" > ".join(theirs), ours == theirs, " > ".join(ours))
    return Section("ranking of modalities", [table], [finding])


def planted_by_modality(study: Study) -> Section:
    """Misalignment planted in one modality at a time, and which score finds it."""
    rows: list[list[Any]] = []
    gains: list[bool] = []
    finds: list[float] = []
    for name in study.data.names:
        run = study.run(f"planted-{name}", shards=study.planted(name))
        made = _summary(run)["planted"]
        record = _planted_means(study, run)
        methods = [made["methods"][m]["auroc"] for m in ("multimem", "cmc_out", "one_model")]
        rows.append([name, *record, *methods])
        gains.append(record[0] > record[1])
        finds.append(methods[1])
    table = Table(
        "Planted misalignment",
        ["modality", "MultiMem, planted", "others", "AUROC MultiMem", "cmc_out", "one model"],
        rows,
    )
    return Section(
        "planted misalignment",
        [table],
        [
            Finding("misaligned samples are memorized more", all(gains), ""),
            Finding(
                "models that never saw them find them",
                min(finds) > 0.8,
                ", ".join(f"{n} {v:.3f}" for n, v in zip(study.data.names, finds, strict=True)),
            ),
        ],
    )


def number_of_models(study: Study) -> Section:
    """How reliably samples are ranked, by the number of reference models."""
    run = study.run("models", f"design.models={study.size.models}")
    rows = study.rows(run, ["key", "shard", "cmc", "member"])
    planted = _planted_flags(study, run, rows)
    cmc = np.array([row["cmc"] for row in rows])
    member = np.array([row["member"] for row in rows], bool)
    table_rows: list[list[Any]] = []
    whole = _contrast(cmc, member)
    for models in range(2, study.size.models + 1, 2):
        score = _contrast(cmc[:, :models], member[:, :models])
        found = auroc(planted, score)["auroc"]
        table_rows.append([models, found, float(np.corrcoef(score, whole)[0, 1])])
    table = Table(
        "Reliability by the number of reference models",
        ["models", "AUROC of planted samples", f"correlation with all {study.size.models}"],
        table_rows,
    )
    more = table_rows[-1][1] > table_rows[0][1]
    detail = f"{table_rows[0][1]:.3f} with 2, {table_rows[-1][1]:.3f} with {table_rows[-1][0]}"
    finding = Finding("more references find planted samples more reliably", more, detail)
    return Section("number of models", [table], [finding])


TABLES: dict[str, Callable[[Study], Section]] = {
    "pairs": global_and_pairs,
    "mitigation": both,
    "in-training": in_training,
    "removal": removal,
    "noise": noise_by_modality,
    "held-out": held_out_sets,
    "shares": candidate_shares,
    "ranking": ranking_of_modalities,
    "planted": planted_by_modality,
    "models": number_of_models,
}


def _split_means(study: Study, run: Run, columns: Sequence[str]) -> dict[str, list[float | None]]:
    """Column → its mean over S_C, S_I and S_S; None for a split without samples."""
    rows = study.rows(run, [*columns, "split"])
    means: dict[str, list[float | None]] = {}
    for column in columns:
        own = [[r[column] for r in rows if r["split"] == split] for split in SPLITS]
        known = [[value for value in values if value is not None] for values in own]
        means[column] = [float(np.mean(values)) if values else None for values in known]
    return means


def _summary(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.storage.read_bytes(run.path("summary.json")))
    return found


def _planted_means(study: Study, run: Run) -> list[float]:
    rows = study.rows(run, ["key", "shard", "multimem"])
    planted = _planted_flags(study, run, rows)
    scores = np.array([row["multimem"] for row in rows])
    return [float(scores[planted].mean()), float(scores[~planted].mean())]


def _planted_flags(study: Study, run: Run, rows: Sequence[Mapping[str, Any]]) -> Any:
    planted = str(run.config.data.planted)
    truth = ParquetFile(planted, planted).read().to_pylist()
    known = {(row["shard"], row["key"]) for row in truth if row["planted"]}
    return np.array([(study.storage.name(r["shard"]), r["key"]) in known for r in rows])


def _contrast(cmc: Any, member: Any) -> Any:
    inside = (cmc * member).sum(1) / member.sum(1)
    return inside - (cmc * ~member).sum(1) / (~member).sum(1)
