"""Gaussian noise on representations, the augmentation of Table 3 of MultiMem (arXiv 2606.22220).

Amounts are relative to the unit vector that an embedding is: of amount a, the noise has an
expected squared norm of a², which is σ = a / √dim for each of its coordinates. The paper states
σ = 0.1 and not for which dimension; a σ of 0.1 in each of 64 coordinates is a noise of norm 0.8,
which drowns the vector, while an amount means the same whatever the dimension.

What comes out is normalised again, so that logits remain cosines: else the loss could escape the
noise by a larger logit scale than its bound allows, and rows with noise would weigh more than
rows without. For amounts of 0.1 that changes a cosine by about half a per cent.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def unit_noise(size: int, dim: int, seed: int, device: torch.device) -> Tensor:
    """(size, dim) Gaussian noise with rows of expected squared norm 1, a function of the seed.

    Drawn on the CPU, so that every device gets the same.
    """
    generator = torch.Generator().manual_seed(seed % (1 << 63))
    return torch.randn(size, dim, generator=generator).div_(dim**0.5).to(device)


def add_noise(
    embeddings: Tensor, noise: Tensor, amount: float, chosen: Tensor | None = None
) -> Tensor:
    """Embeddings with noise, normalised again.

    Args:
        embeddings: (N, dim), L2-normalised.
        noise: (N, dim), rows of expected squared norm 1.
        amount: Expected norm of what is added.
        chosen: (N,) bool, the rows that get it; default all. The others stay exactly as they are.
    """
    noisy = functional.normalize(embeddings + amount * noise, dim=-1)
    return noisy if chosen is None else torch.where(chosen[:, None], noisy, embeddings)
