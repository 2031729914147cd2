"""Dropout follows from seed, model and step alone."""

from __future__ import annotations

from threading import Lock

import torch
from torch import nn

from multimem_ray.models.randomness import SeededDropout, draws

CPU = torch.device("cpu")


def test_a_rate_above_zero_draws() -> None:
    assert draws(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    assert not draws(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))
    assert draws(nn.TransformerEncoderLayer(4, 2, dropout=0.2))


def test_the_same_parts_draw_the_same_and_leave_the_generator_as_it_was() -> None:
    chance, dropout, ones = SeededDropout(True, CPU, Lock()), nn.Dropout(0.5), torch.ones(64)

    def drawn(*parts: str | int) -> list[float]:
        with chance.of(*parts):
            return dropout(ones).tolist()

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert drawn("model", 1) == drawn("model", 1) != drawn("model", 2)
    assert torch.equal(torch.rand(3), expected)


def test_a_model_without_dropout_is_not_touched() -> None:
    torch.manual_seed(0)
    with SeededDropout(False, CPU, Lock()).of("model", 1):
        first = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(3))
