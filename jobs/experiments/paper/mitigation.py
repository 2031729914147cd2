"""The papers' tables on mitigation, and ours: every recipe beside its controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from jobs.experiments.paper import published
from jobs.experiments.paper.findings import MATCHED, Finding, Section, higher, lower
from jobs.experiments.paper.recipes import (
    AMOUNT,
    PLAIN,
    noise,
    regroup,
    remove,
    starts,
    tune,
    unpair,
)
from jobs.experiments.paper.study import Study
from jobs.experiments.trials import (
    Condition,
    Record,
    control_table,
    mean_se,
    paired,
    trial_table,
    values,
)
from multimem_ray.report.tables import Table


def noise_by_modality(study: Study) -> Section:
    """Noise on representations in training (Table 3)."""
    names = study.data.names
    sets = [s for size in range(1, len(names) + 1) for s in combinations(names, size)]
    conditions = [PLAIN, *(noise(chosen) for chosen in sets)]
    records = study.trials(conditions)
    table = trial_table(
        records,
        conditions,
        f"Noise of norm {AMOUNT} on the representations of some modalities",
        "Unmatched is what the papers measure: it grows with the noise, since the references are "
        "of another recipe.",
    )
    rows: list[list[Any]] = []
    for condition, chosen in zip(conditions, [(), *sets], strict=True):
        printed = published.NOISE.get("+".join(chosen)) if study.like_audioclip else None
        ours = mean_se(values(records, condition.name, MATCHED))[0]
        rows.append([condition.about, ours, *(printed or (None, None))])
    beside = Table(
        "The same beside the papers'",
        ["noise on", "MultiMem, matched", "published", "published top-5"],
        rows,
    )
    every = noise(names).name
    return Section(
        "noise by modality",
        [table, beside],
        [
            lower(records, every, "none", "noise on everything lowers MultiMem"),
            higher(records, every, "none", "and raises top-5 retrieval"),
        ],
    )


def in_training(study: Study) -> Section:
    """In-training mitigation by the epoch it begins at, and against its controls."""
    literal = [regroup(study, "multimem", start) for start in starts(study)]
    chance = regroup(study, "random", starts(study)[0])
    aimed = unpair(study, "cmc_out")
    controls = [unpair(study, by) for by in ("random", "cosine", "clipmem", "gradient_norm")]
    conditions = [PLAIN, *literal, chance, aimed, *controls, noise(study.data.names)]
    records = study.trials(conditions)
    table = trial_table(records, conditions, "In-training mitigation", _cost(records, literal[0]))
    names = [control.name for control in controls]
    tests = control_table(records, aimed.name, ["none", *names], "Unpairing against its controls")
    plain_tests = control_table(
        records, literal[0].name, ["none", chance.name], "The papers' algorithm, likewise"
    )
    rows = [[start, score] for start, score in published.REGROUPING.items()]
    printed = Table("Published, by the epoch of the first regrouping", ["epoch", "MultiMem"], rows)
    return Section(
        "in-training mitigation",
        [table, tests, plain_tests, printed],
        [
            lower(records, literal[0].name, "none", "regrouping the top 5 % lowers MultiMem"),
            lower(records, literal[0].name, chance.name, "more than a random 5 % does"),
            lower(records, aimed.name, "none", "(ours) unpairing lowers MultiMem"),
            lower(records, aimed.name, "unpair-random", "(ours) more than a random 20 % does"),
            higher(records, aimed.name, "none", "(ours) and raises top-5 retrieval"),
        ],
    )


def removal(study: Study) -> Section:
    """Post-training mitigation: remove the top, fine-tune on the rest."""
    kinds, percents = ("multimem", "cmc_out", "cosine", "clipmem", "random"), (8, 20)
    conditions = [PLAIN, tune(study)]
    conditions += [remove(study, by, percent) for percent in percents for by in kinds]
    records = study.trials(conditions)
    table = trial_table(records, conditions, "Post-training mitigation", FINE_TUNING)
    aimed, *others = (remove(study, by, percents[-1]).name for by in kinds)
    chance = others[-1]
    controls = ["none", "tune", *others]
    tests = control_table(records, aimed, controls, "Removal by MultiMem against its controls")
    rows = [
        [n, *(published.REMOVAL[by][i] for by in published.REMOVAL)]
        for i, n in enumerate(published.REMOVED)
    ]
    printed = Table("Published top-5 retrieval by N", ["N", *published.REMOVAL], rows)
    return Section(
        "post-training mitigation",
        [table, tests, printed],
        [
            lower(records, aimed, "none", "removal lowers MultiMem"),
            lower(records, aimed, chance, "removal by MultiMem lowers it more than at random"),
            higher(records, aimed, chance, "and gives a better top-5 retrieval"),
        ],
    )


def both(study: Study) -> Section:
    """The two mitigations that we recommend, each beside all of its controls."""
    chosen_by = ("random", "cosine", "clipmem", "gradient_norm")
    start = starts(study)[0]
    during = [unpair(study, "cmc_out"), *(unpair(study, by) for by in chosen_by)]
    regrouped = [regroup(study, by, start) for by in ("multimem", "random")]
    after = [remove(study, by, 20) for by in ("multimem", "cmc_out", *chosen_by)]
    everywhere = noise(study.data.names)
    conditions = [PLAIN, *during, *regrouped, everywhere, tune(study), *after]
    records = study.trials(conditions)
    notes = [_cost(records, regrouped[0]), FINE_TUNING]
    tables = [trial_table(records, conditions, "Mitigation beside its controls", notes)]
    findings = []
    for (aimed, *controls), more, least, name in (
        (during, [everywhere.name], 0.20, "unpairing by cmc_out"),
        (after, ["tune"], 0.12, "removal by MultiMem"),
    ):
        names = [*(control.name for control in controls), *more]
        title = f"{name[0].upper()}{name[1:]} against its controls"
        tables.append(control_table(records, aimed.name, ["none", *names], title))
        findings.append(_by_so_much(records, aimed.name, least, f"(ours) {name}"))
        for task, said in (("R@5", "top-5 retrieval"), ("zero_shot", "zero-shot")):
            if values(records, aimed.name, f"utility/{task}"):
                findings.append(_no_loss(records, aimed.name, task, f"(ours) no loss of {said}"))
        findings += [
            lower(records, aimed.name, other, f"(ours) {name} lowers it more than {other}")
            for other in names
        ]
    return Section("mitigation and controls", tables, findings)


FINE_TUNING = (
    "Removal: each model goes on from its own weights, with noise on all representations and a "
    "high rate, which lets go of what was learned by heart; fine-tuned on everything is what that "
    "does alone."
)


def _cost(records: Sequence[Record], condition: Condition) -> str:
    share, _ = mean_se(values(records, condition.name, "overhead/share"))
    took, plain = (
        mean_se(values(records, name, "overhead/training_s"))[0]
        for name in (condition.name, PLAIN.name)
    )
    return (
        f"Choosing by MultiMem took {100 * share:.2f} % of training: {took:.1f} s with it, "
        f"{share * took:.2f} s of them for the choice, and {plain:.1f} s without, means over seeds."
    )


def _by_so_much(records: Sequence[Record], name: str, least: float, said: str) -> Finding:
    mean, se = mean_se(values(records, name, "memory/change"))
    beyond = "" if math.isnan(se) else f" ± {100 * se:.1f}"
    return Finding(
        f"{said} lowers MultiMem by {100 * least:.0f} % or more",
        mean <= -least,
        f"{100 * mean:+.1f}{beyond} %",
    )


def _no_loss(records: Sequence[Record], name: str, task: str, said: str) -> Finding:
    change = paired(records, name, "none", f"utility/{task}")
    se = 0.0 if math.isnan(change.se) else change.se
    return Finding(
        f"{said} is shown, at two standard errors",
        change.mean + 2 * se >= 0,
        f"{100 * change.mean:+.1f} ± {100 * se:.1f} points, p {change.p:.3f}",
    )
