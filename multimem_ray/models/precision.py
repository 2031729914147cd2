"""Half precision for the towers, and for nothing else.

Convolutions and matrix products gain from it; cosines, losses and consistencies are sums of many
small numbers, and lose. So autocast is around a tower alone: what comes out becomes float32 before
it is normalised, and weights, gradients and optimizer stay float32 throughout.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from multimem_ray.config import Precision
from multimem_ray.errors import ConfigError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """What a tower computes under; nothing at all for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


def require_precision(device: torch.device, precision: Precision, field: str) -> None:
    """Check that a device computes in a precision, by a small step in it.

    Processors of one kind differ in what they can do in fp16, so the device itself is asked.

    Args:
        field: The config field that wants it, for the error.

    Raises:
        ConfigError: It cannot; says what to choose.
    """
    if precision == "fp32":
        return
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.GELU(), nn.Flatten(), nn.Linear(64, 4))
    net = net.to(device)
    try:
        with torch.random.fork_rng(devices=[]), autocast(device, precision):
            out = net(torch.zeros(2, 3, 8, 8, device=device))
        out.float().sum().backward()
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{field}: the {device.type} here does not compute in {precision} ({detail}); use "
            f"{'bf16 or ' if precision == 'fp16' else ''}fp32"
        ) from error
