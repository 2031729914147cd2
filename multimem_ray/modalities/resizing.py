"""Parts of pictures brought to one size: whole batches on a GPU or on a CPU, to the bit alike.

Bilinear with antialiasing, in the integers of torch's own kernel for bytes (weights of 15 bits,
rounded after each axis, as in Pillow). On a CPU it is that kernel, once for all parts of one width.
On a GPU, which has none for bytes, both axes are matrix products in floats: the sums stay below
2^24 and are exact, so that they are the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Views of which the products are in memory at the same time, in floats of the first axis.
_FLOATS_AT_ONCE = 1 << 27


def resized(pictures: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Square parts of pictures, brought to a size.

    Args:
        pictures: uint8 (N, side, side, 3).
        boxes: int64 (N, V, 3), on the CPU: left, top and width of each part, within its picture.
        size: Height and width of the result.

    Returns:
        uint8 (N, V, 3, size, size), on the device of the pictures; on a CPU with channels last.
    """
    if pictures.device.type == "cpu":
        return _by_width(pictures, boxes, size)
    import torch

    per_sample = boxes.shape[1] * 3 * pictures.shape[1] * size
    step = max(1, _FLOATS_AT_ONCE // per_sample)
    with _exact_products():
        parts = [
            _by_products(pictures[at : at + step], boxes[at : at + step], size)
            for at in range(0, len(pictures), step)
        ]
    return torch.cat(parts)


def _by_width(pictures: Tensor, boxes: Tensor, size: int) -> Tensor:
    import torch

    count, views = boxes.shape[:2]
    out = pictures.new_empty(count * views, size, size, 3)
    left, top, width = boxes.view(-1, 3).unbind(1)
    for wide in sorted(set(width.tolist())):
        at = (width == wide).nonzero()[:, 0]
        places = zip((at // views).tolist(), left[at].tolist(), top[at].tolist(), strict=True)
        parts = [pictures[n, y : y + wide, x : x + wide] for n, x, y in places]
        # Channels last is what the kernel for bytes is fastest with.
        stacked = torch.stack(parts).permute(0, 3, 1, 2)
        shown = torch.ops.aten._upsample_bilinear2d_aa(stacked, [size, size], False)
        out.index_copy_(0, at, shown.permute(0, 2, 3, 1))
    return out.view(count, views, size, size, 3).permute(0, 1, 4, 2, 3)


def _by_products(pictures: Tensor, boxes: Tensor, size: int) -> Tensor:
    import torch

    (count, side), device = pictures.shape[:2], pictures.device
    left, top, width = boxes.unbind(2)
    kinds, places = np.unique(width.numpy(), return_inverse=True)
    tables, bits = _tables(tuple(kinds.tolist()), size, side, device)
    kind = torch.from_numpy(places.reshape(width.shape)).to(device)
    shift = bits[kind][..., None, None, None]
    # (N, V, size, side): the weights of each part, moved to where it begins.
    across = _moved(tables[kind], left.to(device))
    down = _moved(tables[kind], top.to(device))
    values = pictures.to(tables.dtype).permute(0, 3, 1, 2)  # (N, 3, side, side)
    first = values.flatten(1, 2) @ across.flatten(1, 2).transpose(1, 2)  # (N, 3 · side, V · size)
    first = first.view(count, 3, side, -1, size).permute(0, 3, 2, 1, 4)
    first = _rounded(first, shift)  # (N, V, side, 3, size)
    second = down @ first.flatten(3)  # (N, V, size, 3 · size)
    second = _rounded(second.view(count, -1, size, 3, size), shift)
    return second.permute(0, 1, 3, 2, 4).contiguous().byte()


def _moved(weights: Tensor, start: Tensor) -> Tensor:
    """Weights (N, V, size, side) of parts that begin at 0, for parts that begin at ``start``."""
    import torch

    side = weights.shape[-1]
    source = torch.arange(side, device=weights.device) - start[..., None]
    inside = (source >= 0)[..., None, :]
    source = source.clamp(min=0)[..., None, :].expand_as(weights)
    return weights.gather(3, source) * inside


def _rounded(sums: Tensor, shift: Tensor) -> Tensor:
    import torch

    unit = torch.exp2(shift)
    return ((sums + unit / 2) / unit).floor_().clamp_(0, 255)


def _tables(
    widths: tuple[int, ...], size: int, side: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Weights (W, size, side) of parts of these widths, and the bits of each: what 1 is in them."""
    import torch

    tables = np.zeros((len(widths), size, side))
    bits = np.zeros(len(widths))
    for place, width in enumerate(widths):
        weights, bits[place] = _weights(width, size)
        tables[place, :, :width] = weights
    # Above 3.5 times smaller, sums could reach beyond what a float32 holds exactly.
    dtype = torch.float32 if 255 * 2.0 ** bits.max() < 2**24 else torch.float64
    return torch.from_numpy(tables).to(device, dtype), torch.from_numpy(bits).to(device, dtype)


@functools.lru_cache(maxsize=1024)
def _weights(width: int, size: int) -> tuple[NDArray[np.float64], int]:
    """Integer weights (size, width) of an axis, and their bits, as in torch's kernel for bytes.

    ``HelperInterpBase::_compute_index_ranges_int16_weights`` in ATen's UpSampleKernel.cpp.
    """
    scale = width / size
    support, inverse = max(1.0, scale), 1 / max(1.0, scale)
    centre = scale * (np.arange(size) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), width)
    at = np.arange(width)
    inside = (at >= first[:, None]) & (at < last[:, None])
    weights = np.maximum(1 - np.abs((at - centre[:, None] + 0.5) * inverse), 0) * inside
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return np.floor(0.5 + weights * (1 << bits)), bits


@contextmanager
def _exact_products() -> Iterator[None]:
    """Products of matrices in full float32: TF32 would round the weights."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
