"""Gradients of a contrastive loss, of the whole batch at once or in micro-batches.

The loss of a batch is not the sum of its parts' losses, since every sample is told apart from
all others. Micro-batches therefore go in three steps (GradCache, Gao et al. 2021, arXiv
2101.06983): embed all of them without keeping what a backward pass needs; take the loss of the
whole batch and its gradient with respect to the embeddings; embed each again, now keeping it, and
go on backwards from its rows of that gradient. Memory is that of one micro-batch of one tower, at
the price of a second forward pass.

The result is that of the whole batch, for towers that treat samples one by one. Batch norm
does not: its statistics are those of the micro-batch (its running statistics count each once). A
dropout mask is the same in both passes, but not the mask of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from multimem_ray.models.contrastive import ContrastiveModel

Embeddings = Mapping[str, Tensor]
Change = Callable[[Embeddings], Embeddings]
Chances = Callable[[str, int], AbstractContextManager[None]]


def backward(
    model: ContrastiveModel,
    features: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    *,
    micro_batch: int | None,
    change: Change,
    chance: Chances,
    scale: Callable[[Tensor], Tensor],
) -> Tensor:
    """Add the gradients of a batch to those of the model.

    Args:
        features: Modality → (N_m, …) features.
        rows: Modality → (N_m,) positions in the batch.
        micro_batch: Most rows that a tower embeds at once; None = all of them.
        change: What is done to the embeddings before they are compared.
        chance: (modality, first row) → what draws random numbers, the same each time.
        scale: Multiplies the loss before its gradient is taken.

    Returns:
        The loss, detached and not scaled.
    """
    if micro_batch is None:
        embeddings: dict[str, Tensor] = {}
        for name, feature in features.items():
            with chance(name, 0):
                embeddings[name] = model.embed_one(name, feature)
        return _backward(model.loss_of(change(embeddings), rows), scale)
    leaves = _without_graph(model, features, micro_batch, chance)
    loss = _backward(model.loss_of(change(leaves), rows), scale)
    for name, leaf in leaves.items():
        if leaf.grad is None:
            continue
        for at, piece in _pieces(features[name], micro_batch):
            with chance(name, at):
                again = model.embed_one(name, piece)
            again.backward(leaf.grad[at : at + len(piece)])  # type: ignore[no-untyped-call]
    return loss


def _backward(loss: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
    # Where everything is frozen, the loss is all there is to learn.
    if loss.requires_grad:
        scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _without_graph(
    model: ContrastiveModel, features: Mapping[str, Tensor], size: int, chance: Chances
) -> dict[str, Tensor]:
    """Embeddings that a gradient can be taken for, where their tower is trained."""
    leaves = {}
    with torch.no_grad(), _kept_statistics(model):
        for name, feature in features.items():
            embedded = []
            for at, piece in _pieces(feature, size):
                with chance(name, at):
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
