"""The order of training: a function of the seed alone, equal for every bank and every attempt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from multimem_ray.design.hashing import seed_of, uniform

T = TypeVar("T")


def shard_order(names: Sequence[str], seed: int, epoch: int) -> list[int]:
    """Positions of the shards in the order in which an epoch reads them.

    Each shard's place follows from its own name, so the order in which they were listed does
    not matter.
    """
    places = uniform(seed, f"shards-{epoch}", names)
    return sorted(range(len(names)), key=lambda i: (places[i], names[i]))


def shuffled(items: Iterable[T], size: int, seed: int, epoch: int) -> Iterator[T]:
    """Shuffle a stream through a buffer of ``size`` items."""
    rng = np.random.default_rng(seed_of(seed, "buffer", epoch))
    buffer: list[T] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = int(rng.integers(size))
        ready, buffer[place] = buffer[place], item
        yield ready
    rng.shuffle(buffer)
    yield from buffer
