"""Dropout that depends on seed, model and step, and on nothing that happens beside it.

torch draws dropout masks from one generator for the whole process, of which the models of a bank
would each take what the others left: then a model would depend on its bank, and a resumed training
on where it was interrupted. A model with dropout therefore draws from a seed of its own, one model
at a time; models without are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import torch
from torch import nn

from multimem_ray.design.hashing import seed_of

# What modules of torch, torchvision, open_clip and transformers call the rate of their dropout.
_RATES = ("p", "prob", "dropout", "drop_prob", "drop_rate", "dropout_p", "attention_dropout")


def draws(model: nn.Module) -> bool:
    """Whether a model in training mode draws random numbers: some module has a rate of dropout."""
    return any(
        isinstance(rate := getattr(module, name, None), float) and rate > 0
        for module in model.modules()
        for name in _RATES
    )


@dataclass(frozen=True)
class SeededDropout:
    """The random numbers of one model.

    Args:
        active: Whether the model draws any; else nothing is done.
        device: Where it computes.
        lock: Held while it draws; the same for all models of a process.
    """

    active: bool
    device: torch.device
    lock: Lock

    @contextmanager
    def of(self, *parts: str | int) -> Iterator[None]:
        """Inside, what is drawn follows from the parts; afterwards all is as before."""
        if not self.active:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with self.lock, torch.random.fork_rng(devices):
            torch.manual_seed(seed_of(*parts) % (1 << 63))
            yield
