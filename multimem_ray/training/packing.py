"""How models are packed into banks: from the configuration, or from what the cluster has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multimem_ray.config import TrainResources


@dataclass(frozen=True)
class BankPacking:
    """A packing.

    Args:
        per_bank: Models in a bank.
        at_once: Banks that run at the same time.
        threads: Models of a bank that step at the same time on a CPU, or ranks that share a step.
        cores: Cores of a bank.
    """

    per_bank: int
    at_once: int
    threads: int
    cores: int

    def banks(self, models: Sequence[str]) -> list[list[str]]:
        """The models of each bank."""
        starts = range(0, len(models), self.per_bank)
        return [list(models[start : start + self.per_bank]) for start in starts]


def pack(
    wanted: TrainResources,
    models: int,
    cpus: int,
    gpus: int,
    fit: int | None = None,
    bank_cpus: int | None = None,
) -> BankPacking:
    """Pack ``models`` models on a cluster of so many cores and GPUs.

    ``auto`` fills the GPUs with one bank each, or makes one bank where there are none: what is
    read and decoded for one model serves all of its bank. Where a GPU holds fewer models, more
    banks of equal size take turns.

    Args:
        fit: Models whose training a GPU has the memory for, if that is known; at least one is
            tried.
        bank_cpus: Most cores that a bank can have: its workers are each on one node.
    """
    at_once = 1
    if wanted.concurrent_banks != "auto":
        at_once = wanted.concurrent_banks
    elif wanted.gpus:
        at_once = max(1, min(int(gpus / wanted.gpus), models))
    if wanted.models_per_bank == "auto":
        rounds = 1 if fit is None else -(-models // (at_once * max(1, fit)))
        per_bank = -(-models // (at_once * max(1, rounds)))
    else:
        per_bank = wanted.models_per_bank
    most = cpus if bank_cpus is None else min(cpus, bank_cpus)
    cores = max(1, min(cpus // at_once, most)) if wanted.cpus == "auto" else wanted.cpus
    workers = wanted.workers_per_bank
    return BankPacking(per_bank, at_once, min(cores, per_bank if workers == 1 else workers), cores)
