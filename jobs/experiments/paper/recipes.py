"""Recipes of the papers' tables: conditions of a training, as overrides of its configuration."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.experiments.paper.study import Study
from jobs.experiments.trials import Condition

PLAIN = Condition("none", (), "none")
# A noise of σ = 0.1 in each of 64 dimensions drowns a unit vector; see models/noise.py.
AMOUNT = 0.5


def candidate(share: float, independent: float | None = None) -> tuple[str, ...]:
    """The papers' splits, with shares of S_C and of S_I."""
    sets = ("design.kind=candidate", f"design.candidate_fraction={share}")
    if independent is None:
        return sets
    return (*sets, f"design.independent_fraction={independent}")


def seeded(seed: int) -> tuple[str, ...]:
    """Another seed of everything."""
    return (f"design.seed={seed}", f"training.seed={seed}")


def noise(chosen: Sequence[str]) -> Condition:
    """Noise on the representations of some modalities."""
    amounts = ", ".join(f"{name}: {AMOUNT}" for name in chosen)
    joined = "+".join(chosen)
    return Condition(
        f"noise-{'-'.join(chosen)}", (f"training.noise={{{amounts}}}",), f"noise on {joined}"
    )


def unpair(study: Study, by: str) -> Condition:
    """While the models train, 20 % of the samples lack the modality that fits the others least.

    Samples of two modalities are left out then.
    """
    start = 0 if by in ("cmc_out", "random") else starts(study)[0]
    about = {
        "cmc_out": "20 % least consistent under models that never saw them, unpaired",
        "random": "random 20 %, unpaired",
    }
    return Condition(
        f"unpair-{by}",
        _in_training(study, by, "unpair", 20, start),
        about.get(by, f"20 % by {by}, unpaired"),
    )


def regroup(study: Study, by: str, start: int) -> Condition:
    """The papers' algorithm: 5 % in mini-batches of their own, with noise."""
    chosen = "random 5 %" if by == "random" else "top 5 % by MultiMem"
    return Condition(
        f"regroup-{by}-{start}",
        _in_training(study, by, "augment", 5, start),
        f"{chosen} regrouped, with noise, from epoch {start}",
    )


def starts(study: Study) -> list[int]:
    """Epochs at which regrouping begins: an eighth, three eighths and three quarters."""
    return sorted({max(1, round(share * study.size.epochs)) for share in (0.125, 0.375, 0.75)})


def remove(study: Study, by: str, percent: float) -> Condition:
    """After training, the top is removed, and the models are fine-tuned on the rest."""
    return Condition(
        f"remove-{by}-{percent:g}",
        _post_training(study, by, percent),
        f"{percent:g} % by {by} removed",
    )


def tune(study: Study) -> Condition:
    """The same fine-tuning without a removal, but for one sample."""
    return Condition("tune", _post_training(study, "random", 1e-6), "fine-tuned on everything")


def _in_training(
    study: Study, by: str, treatment: str, percent: float, start: int
) -> tuple[str, ...]:
    return (
        "mitigation.kind=in_training",
        f"mitigation.by={by}",
        f"mitigation.treatment={treatment}",
        f"mitigation.percent={percent}",
        f"mitigation.every={max(1, study.size.epochs // 10)}",
        f"mitigation.start={start}",
        f"mitigation.noise={AMOUNT}",
    )


def _post_training(study: Study, by: str, percent: float) -> tuple[str, ...]:
    amounts = ", ".join(f"{name}: 1.0" for name in study.data.names)
    return (
        "mitigation.kind=post_training",
        f"mitigation.by={by}",
        "mitigation.treatment=drop",
        f"mitigation.percent={percent:.6f}",
        f"training.epochs={max(1, study.size.epochs // 4)}",
        "training.lr=0.005",
        f"training.noise={{{amounts}}}",
    )
