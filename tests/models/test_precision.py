"""Half precision: the towers compute in it, what is compared stays float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multimem_ray.config import ModelConfig
from multimem_ray.errors import ConfigError
from multimem_ray.modalities import registry
from multimem_ray.models import precision
from multimem_ray.models.build import build_model
from multimem_ray.models.precision import require_precision

CPU = torch.device("cpu")


def test_towers_compute_in_bf16_and_embeddings_are_float32_unit_vectors() -> None:
    modalities = [registry.create("image", {"size": 16}), registry.create("text")]
    model = build_model(ModelConfig(dim=16), modalities, 0)
    values = torch.randint(0, 255, (6, 3, 16, 16), dtype=torch.uint8)
    features = model.prepare({"image": values})
    full = model.embed(features)["image"]
    inside: list[Any] = []
    model.towers["image"].register_forward_hook(lambda *found: inside.append(found[-1].dtype))
    model.precision = "bf16"
    half = model.embed(features)["image"]
    assert inside == [torch.bfloat16]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.norm(dim=1), torch.ones(6), atol=1e-6, rtol=0)
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.03, rtol=0)


def test_a_device_that_cannot_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    require_precision(CPU, "fp32", "training.precision")
    require_precision(CPU, "bf16", "training.precision")

    def refuse(*_: object) -> object:
        raise RuntimeError("no kernel for Half")

    monkeypatch.setattr(precision, "autocast", refuse)
    with pytest.raises(
        ConfigError, match=r"scoring\.precision: the cpu .* fp16 .*no kernel.*use bf16 or fp32"
    ):
        require_precision(CPU, "fp16", "scoring.precision")
