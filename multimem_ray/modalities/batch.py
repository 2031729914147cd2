"""Samples side by side, of which each may lack modalities: decoded, and as views.

A modality's values are stacked for the samples that have it, and ``rows`` says which those are:
towers see no padding, and what is absent costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.modalities.draws import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Stacked:
    """Canonical arrays of N samples as one tensor.

    Args:
        values: (N, *largest shape); what is smaller lies at the beginning of each axis, zeros
            behind it.
        shapes: int64 (N, axes), on the CPU: the shape of each.
    """

    values: Tensor
    shapes: Tensor

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]]) -> Stacked:
        """Arrays of one type and number of axes."""
        import torch

        shapes = [array.shape for array in arrays]
        if len(set(shapes)) == 1:
            stacked = np.stack(arrays)
        else:
            largest = tuple(np.max(shapes, axis=0).tolist())
            stacked = np.zeros((len(arrays), *largest), arrays[0].dtype)
            for place, array in zip(stacked, arrays, strict=True):
                place[tuple(map(slice, array.shape))] = array
        return cls(torch.from_numpy(stacked), torch.tensor(shapes).view(len(arrays), -1))

    def __len__(self) -> int:
        return len(self.values)

    def array(self, row: int) -> NDArray[Any]:
        """The array of one of the samples."""
        array: NDArray[Any] = self.values[row].numpy()
        return array[tuple(map(slice, self.shapes[row].tolist()))]

    def rows(self, rows: Tensor | slice) -> Stacked:
        """Some of the samples."""
        return Stacked(self.values[rows], self.shapes[rows])


@dataclass(frozen=True)
class DecodedBatch:
    """Canonical arrays of B samples, modality by modality: all that crosses to a device.

    Args:
        arrays: Modality to what the samples that have it were decoded to. Of a modality that makes
            its views one by one, these are the views, (R_m, V, *shape).
        rows: Modality to int64 tensor (R_m,), on the CPU: position of each in the batch, ascending.
        draws: Random numbers of the B samples' views; None for clean ones.
        size: Number of samples, B.
    """

    arrays: Mapping[str, Stacked]
    rows: Mapping[str, Tensor]
    draws: Draws | None
    size: int

    @property
    def views(self) -> int:
        """Number of views of each sample, V."""
        return 1 if self.draws is None else len(self.draws.views)

    def present(self, names: Sequence[str]) -> Tensor:
        """Which samples have which of these modalities: bool (B, len(names))."""
        return _present(self.rows, self.size, names)

    def to(self, device: torch.device) -> DecodedBatch:
        """With its arrays on a device; to a GPU through pinned memory, without waiting."""
        if device.type == "cpu":
            return self
        moved = {
            name: Stacked(one.values.pin_memory().to(device, non_blocking=True), one.shapes)
            for name, one in self.arrays.items()
        }
        return DecodedBatch(moved, self.rows, self.draws, self.size)

    def at(self, row: int) -> DecodedBatch:
        """One of the samples."""
        import torch

        arrays: dict[str, Stacked] = {}
        for name, rows in self.rows.items():
            place = (rows == row).nonzero()[:, 0]
            if len(place):
                arrays[name] = self.arrays[name].rows(place)
        draws = None if self.draws is None else self.draws.rows(slice(row, row + 1))
        return DecodedBatch(arrays, dict.fromkeys(arrays, torch.tensor([0])), draws, 1)


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

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, Tensor]]) -> Batch:
        """Of B samples' views, modality to (*shape)."""
        import torch

        values: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        for name in sorted({name for sample in samples for name in sample}):
            at = [row for row, sample in enumerate(samples) if name in sample]
            values[name] = torch.stack([samples[row][name] for row in at])
            rows[name] = torch.tensor(at, device=values[name].device)
        return cls(values, rows, len(samples))

    def samples(self) -> list[dict[str, Tensor]]:
        """The views of each sample."""
        views: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        for name, values in self.values.items():
            for row, value in zip(self.rows[name].tolist(), values.unbind(), strict=True):
                views[row][name] = value
        return views

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
        return _present(self.rows, self.size, names)

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


def _present(rows: Mapping[str, Tensor], size: int, names: Sequence[str]) -> Tensor:
    import torch

    device = next(iter(rows.values())).device if rows else None
    table = torch.zeros((size, len(names)), dtype=torch.bool, device=device)
    for column, name in enumerate(names):
        if name in rows:
            table[rows[name], column] = True
    return table
