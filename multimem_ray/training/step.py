"""One optimization step of a model: learning rate, gradients, noise, clipping.

The loss of a batch is not the sum of its parts' losses, since every sample is told apart from all
others. Micro-batches therefore go in three steps (GradCache, Gao et al. 2021, arXiv 2101.06983):
embed all of them without keeping what a backward pass needs; take the loss of the whole batch and
its gradient with respect to the embeddings; embed each again, now keeping it, and go on backwards
from its rows of that gradient. Memory is that of one micro-batch of one tower, at the price of a
second forward pass.

The result is that of the whole batch, for towers that treat samples one by one. Batch norm does
not: its statistics are those of the micro-batch (its running statistics count each once). A dropout
mask is the same in both passes, but not the mask of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from multimem_ray.config import TrainingConfig
from multimem_ray.design.hashing import seed_of
from multimem_ray.modalities.batch import Batch
from multimem_ray.models.collectives import average_gradients, rank
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.models.noise import add_noise, unit_noise
from multimem_ray.training.train_state import TrainState

Embeddings = Mapping[str, Tensor]
Change = Callable[[Embeddings], Embeddings]
Dropout = Callable[[str, int], AbstractContextManager[None]]


@dataclass(frozen=True)
class RankBatch:
    """What one rank has of a batch.

    Args:
        batch: Its samples.
        keys: Their keys.
        places: Their positions in the whole batch, ascending.
        size: Number of samples in the whole batch.
    """

    batch: Batch
    keys: Sequence[str]
    places: Sequence[int]
    size: int


def train_step(
    state: TrainState,
    config: TrainingConfig,
    part: RankBatch,
    progress: float,
    noise: float = 0.0,
) -> None:
    """Take one optimizer step; its loss is added to the state's.

    Args:
        state: The model.
        config: The section ``training``.
        part: What the model trains on.
        progress: Share of the whole training that is done, 0 to 1.
        noise: Amount that is put on all embeddings, beside ``training.noise``.
    """
    # What the random numbers of the step follow from.
    seeds = config.seed, state.number, state.step
    batch = part.batch.to(state.device)

    def observed(embeddings: Embeddings) -> Embeddings:
        """The embeddings as the loss sees them; the policy sees them clean."""
        state.policy.observe(part.keys, embeddings, batch.rows, state.model)
        return _with_noise(embeddings, batch, part, config.noise, noise, seeds)

    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step, progress)
    state.optimizer.zero_grad(set_to_none=True)
    loss = backward(
        state.model,
        state.model.prepare(batch.values),
        batch.rows,
        micro_batch=config.micro_batch,
        change=observed,
        dropout=partial(state.dropout.of, "dropout", rank(), *seeds),
        scale=state.scaler.scale,
    )
    average_gradients(state.model.parameters())
    state.skipped.append(_update(state, config.clip_norm))
    state.losses.append(loss)
    state.step += 1


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, times the schedule over the whole training.

    Args:
        step: Steps taken, from 0.
        progress: Share of the whole training that is done, 0 to 1.
    """
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    elif config.schedule == "exponential":
        # The share of an epoch that is done may be a rounding error below a whole number.
        factor = config.gamma ** math.floor(progress * config.epochs + 1e-9)
    else:
        factor = 1.0
    return config.lr * warm * factor


def backward(
    model: ContrastiveModel,
    features: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    *,
    micro_batch: int | None,
    change: Change,
    dropout: Dropout,
    scale: Callable[[Tensor], Tensor],
) -> Tensor:
    """Add the gradients of a batch to those of the model.

    Args:
        features: Modality → (N_m, …) features.
        rows: Modality → (N_m,) positions in the batch.
        micro_batch: Most rows that a tower embeds at once; None = all of them.
        change: What is done to the embeddings before they are compared.
        dropout: (modality, first row) → what draws random numbers, the same each time.
        scale: Multiplies the loss before its gradient is taken.

    Returns:
        The loss, detached and not scaled.
    """
    if micro_batch is None:
        embeddings: dict[str, Tensor] = {}
        for name, feature in features.items():
            with dropout(name, 0):
                embeddings[name] = model.embed_one(name, feature)
        return _backward(model.loss_of(change(embeddings), rows), scale)
    leaves = _without_graph(model, features, micro_batch, dropout)
    loss = _backward(model.loss_of(change(leaves), rows), scale)
    for name, leaf in leaves.items():
        if leaf.grad is None:
            continue
        for at, piece in _pieces(features[name], micro_batch):
            with dropout(name, at):
                again = model.embed_one(name, piece)
            again.backward(leaf.grad[at : at + len(piece)])  # type: ignore[no-untyped-call]
    return loss


def _backward(loss: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
    # Where everything is frozen, the loss is all there is to learn.
    if loss.requires_grad:
        scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _without_graph(
    model: ContrastiveModel, features: Mapping[str, Tensor], size: int, dropout: Dropout
) -> dict[str, Tensor]:
    """Embeddings that a gradient can be taken for, where their tower is trained."""
    leaves = {}
    with torch.no_grad(), _kept_statistics(model):
        for name, feature in features.items():
            embedded = []
            for at, piece in _pieces(feature, size):
                with dropout(name, at):
                    embedded.append(model.embed_one(name, piece))
            leaves[name] = torch.cat(embedded)
    for name, leaf in leaves.items():
        leaf.requires_grad_(model.is_trained(name))
    return leaves


def _pieces(feature: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    for at in range(0, len(feature), size):
        yield at, feature[at : at + size]


@contextmanager
def _kept_statistics(model: nn.Module) -> Iterator[None]:
    """Running statistics are afterwards what they were: the second pass counts."""
    kept: Sequence[tuple[Tensor, Tensor]] = [(b, b.clone()) for b in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def _with_noise(
    embeddings: Embeddings,
    batch: Batch,
    part: RankBatch,
    amounts: Mapping[str, float],
    more: float,
    seeds: tuple[int, int, int],
) -> Embeddings:
    """Embeddings with the configured amounts of noise, and more on all of them.

    A sample's configured noise follows from its place in the whole batch, whatever rank has it.
    """
    noisy = dict(embeddings)
    for name, embedded in embeddings.items():
        dim, rows = embedded.shape[1], batch.rows[name]
        if amount := amounts.get(name):
            noise = unit_noise(part.size, dim, seed_of("noise", *seeds, name), embedded.device)
            places = torch.tensor(part.places, device=embedded.device)
            noisy[name] = add_noise(noisy[name], noise[places[rows]], amount)
        if more:
            seed = seed_of("regrouped noise", *seeds, name)
            noise = unit_noise(batch.size, dim, seed, embedded.device)
            noisy[name] = add_noise(noisy[name], noise[rows], more)
    return noisy


def _update(state: TrainState, clip_norm: float | None) -> Tensor:
    """Take the step that the gradients ask for; true if fp16 could not hold them."""
    skipped = torch.zeros((), dtype=torch.bool)
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    if not gradients:
        return skipped
    if state.scaler.is_enabled():
        state.scaler.unscale_(state.optimizer)
        skipped = ~torch.isfinite(torch.nn.utils.get_total_norm(gradients))
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return skipped
