"""Checkpoints: exact resumption, refusal of what does not fit, nothing unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from multimem_ray.errors import ModelError
from multimem_ray.models.checkpoint import (
    ModelFolder,
    Progress,
    load_weights,
    read_weights,
    unprefixed,
)
from multimem_ray.storage import Storage


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    model = model.to(memory_format=torch.channels_last)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(5, 2, 4, 4, generator=generator)
    optimizer.zero_grad()
    model(values.contiguous(memory_format=torch.channels_last)).square().mean().backward()
    optimizer.step()


def folder(tmp_path: Path, fingerprint: str = "f" * 16) -> ModelFolder:
    return ModelFolder(Storage(), str(tmp_path / "000"), fingerprint)


def test_a_resumed_training_is_the_undisturbed_one(tmp_path: Path) -> None:
    straight, optimizer = fresh()
    for number in range(6):
        step(straight, optimizer, number)
    broken, first = fresh()
    for number in range(3):
        step(broken, first, number)
    folder(tmp_path).save_progress(broken, first, Progress(3, 30))
    resumed, second = fresh()
    assert folder(tmp_path).load_progress(resumed, second) == Progress(3, 30)
    for number in range(3, 6):
        step(resumed, second, number)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_training_starts_afresh(tmp_path: Path) -> None:
    model, optimizer = fresh()
    folder(tmp_path).save_progress(model, optimizer, Progress(1, 1))
    assert folder(tmp_path, "0" * 16).load_progress(model, optimizer) is None


def test_done_belongs_to_one_training(tmp_path: Path) -> None:
    model, optimizer = fresh()
    place = folder(tmp_path)
    place.save_progress(model, optimizer, Progress(1, 1))
    assert not place.is_done()
    place.finish(model, {"a": 1}, {"b": 2})
    assert place.is_done()
    assert not folder(tmp_path, "0" * 16).is_done()
    assert not (tmp_path / "000" / "checkpoint.safetensors").exists()
    other, _ = fresh()
    with torch.no_grad():
        other[0].weight.zero_()
    place.load_into(other)
    assert torch.equal(other[0].weight, model[0].weight)


def test_damaged_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    model, optimizer = fresh()
    place = folder(tmp_path)
    with pytest.raises(ModelError, match=r"model\.safetensors.*train again"):
        place.load_into(model)
    place.finish(model, {}, {})
    with pytest.raises(ModelError, match="do not fit the configured model"):
        place.load_into(nn.Linear(2, 2))
    weights = tmp_path / "000" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        place.load_into(model)
    place.save_progress(model, optimizer, Progress(1, 1))
    broken = tmp_path / "000" / "checkpoint.safetensors"
    broken.write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(ModelError, match="damaged"):
        place.load_progress(model, optimizer)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model._orig_mod.", ""])
def test_names_of_wrappers_are_left_away(prefix: str, tmp_path: Path) -> None:
    model, _ = fresh()
    named = {prefix + name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(named, tmp_path / "model.safetensors")
    load_weights(model, read_weights(Storage(), str(tmp_path)), "it")
    assert unprefixed(
        {"model.a": named[f"{prefix}0.bias"], "b": named[f"{prefix}0.bias"]}
    ).keys() == {
        "model.a",
        "b",
    }


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("/nonexistent/never"),))


def test_a_pickle_in_the_place_of_weights_is_not_run(tmp_path: Path) -> None:
    model, _ = fresh()
    place = folder(tmp_path)
    place.finish(model, {}, {})
    (tmp_path / "000" / "model.safetensors").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ModelError, match="cannot be loaded"):
        place.load_into(model)


def test_history_keeps_each_epoch_once(tmp_path: Path) -> None:
    place = folder(tmp_path)
    place.append_history([{"epoch": 0, "loss": 3.0}, {"epoch": 1, "loss": 2.0}])
    place.append_history([{"epoch": 1, "loss": 1.5}, {"epoch": 2, "loss": 1.0}])
    assert [line["loss"] for line in place.history()] == [3.0, 1.5, 1.0]
