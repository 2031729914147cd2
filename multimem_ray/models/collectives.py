"""Rows from all ranks of a distributed training, with gradients that find their way back.

Contrastive learning wants the negatives of the whole batch. Every rank gathers the rows of all
others, of which there may be more or fewer than its own, and computes the loss of the whole batch;
averaged over the ranks, as DistributedDataParallel does, the gradients are those of one process
with that batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn

_BUCKET = 1 << 25


def world_size() -> int:
    """Number of ranks; 1 without distributed training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """Which of the ranks this is; 0 without distributed training."""
    return distributed.get_rank() if world_size() > 1 else 0


def gather_rows(*matched: Tensor) -> tuple[Tensor, ...]:
    """The rows (n, d) of all ranks, in the order of the ranks: (Σ n, d) for each argument.

    Every rank must call it, also one without rows, with as many arguments of the same d.

    Args:
        matched: Tensors with the same number of rows on this rank.
    """
    head = matched[0]
    facts = torch.tensor([len(head), *(int(t.requires_grad) for t in matched)], device=head.device)
    everywhere = [torch.empty_like(facts) for _ in range(world_size())]
    distributed.all_gather(everywhere, facts)
    table = torch.stack(everywhere).cpu()
    sizes = table[:, 0].tolist()
    found = []
    for number, tensor in enumerate(matched):
        # All ranks take part in the backward pass, or all but one wait for ever.
        trained = bool(table[:, 1 + number].any())
        own = tensor if tensor.requires_grad or not trained else tensor.detach().requires_grad_()
        found.append(_Gather.apply(own, sizes))  # type: ignore[no-untyped-call]
    return tuple(found)


class _Gather(torch.autograd.Function):
    """All-gather of rows; its gradient is the sum over ranks of what they want of ours."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = own.new_zeros(max(sizes), own.shape[1])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        rank = distributed.get_rank()
        start = sum(ctx.sizes[:rank])
        return total[start : start + ctx.sizes[rank]], None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients to their mean over the ranks; every rank must call it with the same parameters.

    A rank to which a parameter meant nothing counts as zero; one that no rank has a gradient for
    stays without.
    """
    trained = [p for p in parameters if p.requires_grad]
    if world_size() == 1 or not trained:
        return
    has = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    distributed.all_reduce(has)
    wanted = [p for p, count in zip(trained, has.tolist(), strict=True) if count]
    for bucket in _buckets(wanted):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat.div_(world_size())
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(bucket, gradients, parts, strict=True):
            parameter.grad = gradient.copy_(part.view(gradient.shape))


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one type that are sent together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        same = not bucket or parameter.dtype == bucket[0].dtype
        if bucket and not (same and sum(p.numel() for p in bucket) < _BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
