"""Small towers."""

from __future__ import annotations

import torch

from multimem_ray.modalities.base import Spec
from multimem_ray.models.towers import build_tower


def test_padding_of_tokens_changes_nothing() -> None:
    tower = build_tower("text", Spec("tokens", (6,), "int32", vocab=9), 4, {})
    some = torch.tensor([[3, 4, 0, 0, 0, 0]], dtype=torch.int32)
    with torch.no_grad():
        before = tower(tower.prepare(some))
        tower.token.weight[0] += 5.0
        torch.testing.assert_close(tower(tower.prepare(some)), before)
