"""How models are packed into banks: by the configuration, the cluster, and what a model needs.

Weights, gradients and optimizer state are counted. What a step keeps for its backward pass is
measured, by forward passes of few samples on the CPU, and grows with the batch. On a GPU the models
of a bank step one after the other: their state is there all the time, but only one step's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimem_ray.config import TrainingConfig, TrainResources
from multimem_ray.modalities.base import Modality
from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.run import Run

# What is left is for the context of the device, workspaces of its libraries and fragments.
_SHARE, _CONTEXT = 0.85, 1_000_000_000
_MOMENTS = {"adamw": 2, "sgd": 1}
_DRY = (2, 4)


@dataclass(frozen=True)
class ModelMemory:
    """Bytes of one model in training.

    Args:
        state: Weights, gradients and optimizer state.
        step: What a step of a whole batch keeps besides, on all ranks together.
    """

    state: int
    step: int

    def bank(self, models: int, at_once: int = 1, workers: int = 1) -> int:
        """Bytes of a bank on each of its workers, of which so many models step at once."""
        return models * self.state + min(models, at_once) * self.step // workers

    def fit(self, device_bytes: float, workers: int = 1) -> int:
        """How many models fit a GPU of so many bytes (or the part of it that a worker gets)."""
        room = _SHARE * device_bytes - _CONTEXT - self.step / workers
        return max(0, int(room // self.state))


def model_memory(run: Run) -> ModelMemory:
    """Measure a model of a run; builds it, without its weights."""
    config, modalities = run.config, run.decoder.modalities
    model = build_model(config.model, modalities, 0, weights=False)
    model.precision = "fp32" if config.training.precision == "fp32" else "bf16"
    return ModelMemory(_state(model, config.training), _step(model, modalities, config.training))


def too_large(memory: ModelMemory, device_bytes: float, workers: int) -> str:
    """What to say of a model that does not fit, and the way out."""
    needed = memory.bank(1, 1, workers) / 1e9
    return (
        f"one model needs about {needed:.1f} GB in training, and a GPU has {device_bytes / 1e9:.1f}"
        ": set training.micro_batch, training.precision, or resources.train.workers_per_bank"
    )


def _state(model: nn.Module, config: TrainingConfig) -> int:
    copies = 2 + _MOMENTS[config.optimizer]
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    others = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    return trained * copies + others + sum(buffer.nbytes for buffer in model.buffers())


def _step(model: ContrastiveModel, modalities: tuple[Modality, ...], config: TrainingConfig) -> int:
    """Features of a batch, and what the towers keep of all of it or of one micro-batch.

    What is kept is so much for each sample, and what does not depend on them: in half precision, a
    copy of the weights.
    """
    features, kept = 0.0, []
    at_once = min(config.micro_batch or config.batch_size, config.batch_size)
    for modality in modalities:
        sizes = []
        for count in _DRY:
            raw = torch.ones(count, *modality.spec.shape, dtype=getattr(torch, modality.spec.dtype))
            prepared = model.prepare({modality.name: raw})[modality.name]
            sizes.append(_kept(model, modality.name, prepared))
        features += (raw.nbytes + prepared.nbytes) / len(raw)
        of_one = (sizes[1] - sizes[0]) / (_DRY[1] - _DRY[0])
        kept.append(sizes[0] + (at_once - _DRY[0]) * of_one)
    # All towers wait for the loss; of micro-batches there is one at a time.
    towers = sum(kept) if config.micro_batch is None else max(kept)
    return int(config.batch_size * features + max(0.0, towers))


def _kept(model: ContrastiveModel, name: str, features: Tensor) -> int:
    """Bytes that a tower's forward pass keeps for the backward pass, besides weights and input."""
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), features)}
    sizes: dict[int, int] = {}
    alive: list[Any] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or another one would get its address
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(pack, _same):
        embedded = model.embed_one(name, features)
    del embedded
    return sum(sizes.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


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
    resources: TrainResources,
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
    if resources.concurrent_banks != "auto":
        at_once = resources.concurrent_banks
    elif resources.gpus:
        at_once = max(1, min(int(gpus / resources.gpus), models))
    if resources.models_per_bank == "auto":
        rounds = 1 if fit is None else -(-models // (at_once * max(1, fit)))
        per_bank = -(-models // (at_once * max(1, rounds)))
    else:
        per_bank = resources.models_per_bank
    most = cpus if bank_cpus is None else min(cpus, bank_cpus)
    cores = max(1, min(cpus // at_once, most)) if resources.cpus == "auto" else resources.cpus
    workers = resources.workers_per_bank
    return BankPacking(per_bank, at_once, min(cores, per_bank if workers == 1 else workers), cores)
