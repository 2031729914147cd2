"""Samples side by side, of which each may lack modalities.

A modality's values are stacked for the samples that have it, and ``rows`` says which those are:
towers see no padding, and what is absent costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Views of ``size`` samples, modality by modality.

    Args:
        values: Modality to tensor (R_m, *shape) of the samples that have it.
        rows: Modality to int64 tensor (R_m,): position of each of them in the batch, ascending.
        size: Number of samples, B. A modality that none of them has is in neither mapping.
    """

    values: dict[str, Tensor]
    rows: dict[str, Tensor]
    size: int

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities that at least one sample has, sorted."""
        return tuple(sorted(self.values))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on another device; itself where it is there already."""

        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {m: t.to(device, non_blocking=non_blocking) for m, t in tensors.items()}

        return Batch(move(self.values), move(self.rows), self.size)

    def present(self, names: Sequence[str]) -> Tensor:
        """Which samples have which of these modalities: bool (B, len(names))."""
        import torch

        device = next(iter(self.rows.values())).device if self.rows else None
        table = torch.zeros((self.size, len(names)), dtype=torch.bool, device=device)
        for column, name in enumerate(names):
            if name in self.rows:
                table[self.rows[name], column] = True
        return table

    def select(self, indices: Tensor | Sequence[int]) -> Batch:
        """The samples at ``indices``, in that order, or where a bool mask (B,) is true.

        Modalities that none of them has are left out.
        """
        import torch

        chosen = torch.as_tensor(indices)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero()[:, 0]
        chosen = chosen.long()
        values: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        for name, tensor in self.values.items():
            where = torch.full((self.size,), -1, device=tensor.device)
            where[self.rows[name]] = torch.arange(len(tensor), device=tensor.device)
            at = where[chosen.to(tensor.device)]
            kept = (at >= 0).nonzero()[:, 0]
            if len(kept):
                values[name], rows[name] = tensor[at[kept]], kept
        return Batch(values, rows, len(chosen))
