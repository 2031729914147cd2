"""Random numbers of views, from a counter: any of them without those before it.

A number is a hash of (seed of the sample, view, modality, place), in integers that wrap at 64 bits.
So it is the same in every batch, order and thread and on every device, and a whole batch is drawn
at once. The hash is the finalizer of SplitMix64 (Steele, Lea & Flood 2014, Fast splittable
pseudorandom number generators).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.design.hashing import seed_of

if TYPE_CHECKING:
    from torch import Tensor

# The odd number next to 2^64 / golden ratio, and the finalizer's factors, as signed integers.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_FACTORS = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


class Draws:
    """The random numbers of V views of each of N samples.

    Args:
        seeds: int64 (N,), one for each sample, on the CPU.
        views: Numbers of the views; in training, whatever counts the visits to a sample.
        stream: What they are for; each stream is independent of the others.
    """

    def __init__(self, seeds: Tensor, views: Sequence[int], stream: str = "") -> None:
        self.seeds, self.views, self.stream = seeds, tuple(views), stream

    def of(self, stream: str) -> Draws:
        """Independent numbers of the same samples and views."""
        return Draws(self.seeds, self.views, stream)

    def rows(self, rows: Tensor | slice) -> Draws:
        """The numbers of some of the samples."""
        return Draws(self.seeds[rows], self.views, self.stream)

    def __len__(self) -> int:
        return len(self.seeds)

    @cached_property
    def keys(self) -> Tensor:
        """int64 (N, V), on the CPU: one of each view, from which its numbers follow."""
        import torch

        stream = torch.tensor(_signed(seed_of("views", self.stream)))
        numbers = torch.tensor(self.views, dtype=torch.int64)
        return _mixed(_mixed(self.seeds + stream)[:, None] + numbers * _STEP)

    def uniform(self, count: int) -> Tensor:
        """float64 (N, V, count) in [0, 1), 53 random bits each, on the CPU."""
        import torch

        bits = self._bits(torch.arange(1, count + 1))
        return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53

    def bytes(self, count: int, device: Any = "cpu") -> Tensor:
        """int8 (N, V, count), uniform on -128..127, made on a device.

        They are others than those of :meth:`uniform`.
        """
        import torch

        places = torch.arange(-(-count // 8), device=device) - (1 << 62)
        if places.device.type == "cpu":
            # NumPy's logical shifts, in place, take a third of the time.
            keys, steps = (t.numpy().view(np.uint64) for t in (self.keys, places * _STEP))
            bits = np.empty((*keys.shape, len(steps)), np.uint64)
            for key, row in zip(keys.flat, bits.reshape(-1, len(steps)), strict=True):
                _mix_in_place(np.add(steps, key, out=row))
            return torch.from_numpy(bits.view(np.int8))[..., :count]
        return self._bits(places).view(torch.int8)[..., :count]

    def generators(self, row: int) -> Iterator[np.random.Generator]:
        """A generator for each view of a sample, valid until the next is asked for."""
        return (_GENERATORS.seeded(key) for key in self.keys[row].tolist())

    def _bits(self, places: Tensor) -> Tensor:
        return _mixed(self.keys.to(places.device)[..., None] + places * _STEP)


def seeds_of(seed: int, purpose: str, keys: Sequence[str]) -> Tensor:
    """Seeds of samples, int64 (N,)."""
    import torch

    return torch.tensor([_signed(seed_of(seed, purpose, key)) for key in keys], dtype=torch.int64)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mixed(bits: Tensor) -> Tensor:
    """SplitMix64's finalizer; the shifts of signed integers are made logical by the masks."""
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _FACTORS[0]
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _FACTORS[1]
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


def _mix_in_place(bits: NDArray[np.uint64]) -> None:
    """The same."""
    shifted = np.empty_like(bits)
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        bits ^= np.right_shift(bits, np.uint64(shift), out=shifted)
        bits *= np.uint64(factor % (1 << 64))
    bits ^= np.right_shift(bits, np.uint64(31), out=shifted)


class _Generators(threading.local):
    """One NumPy generator for each thread, given a new key at each request.

    Philox is counter-based, too: any key gives an independent stream, and a new key costs a tenth
    of a new generator.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._state: Any = self._bits.state

    def seeded(self, key: int) -> np.random.Generator:
        """``Generator(Philox(key))``, valid until the thread's next request."""
        # Counter, buffer and flags in ``_state`` are those of a fresh stream, and are copied.
        self._state["state"]["key"][0] = key % (1 << 64)
        self._bits.state = self._state
        return self._generator


_GENERATORS = _Generators()
