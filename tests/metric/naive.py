"""The definitions, written out: loops and a double sum over H in float64, nothing factored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Embeddings of samples (V, B, n, d) and of a held-out set (V, |H|, n, d), with presence."""

    samples: Array
    present: NDArray[np.bool_]
    held_out: Array
    held_present: NDArray[np.bool_]

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.samples), torch.from_numpy(self.present)

    def held_tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.held_out), torch.from_numpy(self.held_present)


def unit(rng: np.random.Generator, *shape: int) -> Array:
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@st.composite
def worlds(draw: st.DrawFn, complete: bool = False, modalities: int | None = None) -> World:
    """A small world; each modality is in some held-out sample, each sample has at least one."""
    n = modalities or draw(st.integers(2, 5))
    views, samples, held, dim = (draw(st.integers(1, top)) for top in (3, 4, 5, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = np.ones((samples, n), dtype=bool)
    held_present = np.ones((held, n), dtype=bool)
    if not complete:
        present = rng.random((samples, n)) < 0.6
        present[np.arange(samples), rng.integers(n, size=samples)] = True
        held_present = rng.random((held, n)) < 0.6
        held_present[rng.integers(held, size=n), np.arange(n)] = True
    world = World(
        unit(rng, views, samples, n, dim), present, unit(rng, views, held, n, dim), held_present
    )
    # What stands in place of an absent modality must not matter.
    world.samples[:, ~present] = np.nan
    world.held_out[:, ~held_present] = np.inf
    return world


def cmc(world: World, i: int, only: Iterable[int] | None = None, skip: int | None = None) -> float:
    """½ E_v Σ_jk φ_j·φ_k - ½ Σ_jk E_{h, v, v'} φ_j(i, v)·φ_k(h, v'), h over those that have k.

    Args:
        world: Samples and H.
        i: The sample.
        only: Restrict it to these modalities.
        skip: Leave this sample out of H.
    """
    here = [int(j) for j in np.flatnonzero(world.present[i])]
    here = [j for j in here if only is None or j in set(only)]
    views = range(world.samples.shape[0])
    first = np.mean(
        [
            sum(float(world.samples[v, i, j] @ world.samples[v, i, k]) for j in here for k in here)
            for v in views
        ]
    )
    second = 0.0
    for j, k in product(here, here):
        dots = [
            float(world.samples[v, i, j] @ world.held_out[w, h, k])
            for h in range(world.held_out.shape[1])
            if world.held_present[h, k] and h != skip
            for v in views
            for w in range(world.held_out.shape[0])
        ]
        second += float(np.mean(dots))
    return float(first) / 2 - second / 2


def matrix_cmc(world: World, i: int) -> float:
    """The formula of the paper, letter by letter; every modality present everywhere."""
    one = np.ones(world.samples.shape[2])
    own = [one @ phi @ phi.T @ one for phi in world.samples[:, i]]
    cross = [
        one @ phi @ world.held_out[w, h].T @ one
        for phi in world.samples[:, i]
        for w in range(world.held_out.shape[0])
        for h in range(world.held_out.shape[1])
    ]
    return float(np.mean(own) / 2 - np.mean(cross) / 2)
