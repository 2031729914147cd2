"""Precision and shapes, shared by the modules of this package."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """The tensor in the precision that sums are taken in: float64.

    float64 is immune to the reduced-precision matrix products (TF32) that a caller may have
    switched on for float32, and makes results independent of how samples were batched. Apple's
    MPS has no float64; float32 is what it can do.
    """
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def masked(values: Tensor, mask: Tensor, fill: float = 0.0) -> Tensor:
    """``values`` where ``mask``, else ``fill``; NaN behind the mask does not get through."""
    return torch.where(mask, values, torch.full((), fill, dtype=values.dtype, device=values.device))


def check_embeddings(embeddings: Tensor, present: Tensor) -> None:
    """Raise ValueError unless embeddings are (V, B, n, d) with V >= 1, and present bool (B, n)."""
    if embeddings.ndim != 4 or embeddings.shape[0] == 0:
        raise ValueError(
            f"embeddings have shape {tuple(embeddings.shape)}; give (views, samples, modalities, "
            "dimensions) with at least one view"
        )
    check_mask("present", present, (embeddings.shape[1], embeddings.shape[2]))


def check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``mask`` is a bool tensor of this shape."""
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        raise ValueError(
            f"{name} is {mask.dtype} of shape {tuple(mask.shape)}; give torch.bool of shape {shape}"
        )
