"""Snapshots: the file that safetensors reads, of the moment when it was taken."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

from multimem_ray.errors import StorageError
from multimem_ray.models.snapshot import Snapshot, snapshot_bytes
from multimem_ray.storage import Storage


def tensors() -> dict[str, torch.Tensor]:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    return {
        "weight": weight,
        "again": weight,
        "half": torch.randn(5).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "wide": torch.randn(2, dtype=torch.float64).requires_grad_(),
        "turned": torch.arange(6, dtype=torch.int16).reshape(2, 3).T,
    }


@pytest.mark.parametrize("room", [None, 10, 1000])
def test_the_file_is_what_was_there(tmp_path: Path, room: int | None) -> None:
    values, path = tensors(), tmp_path / "a" / "x.safetensors"
    before = {name: value.detach().clone() for name, value in values.items()}
    memory = None if room is None else torch.full((room,), 3, dtype=torch.uint8)
    snapshot = Snapshot.of(values, {"epoch": "3", "ü": '"\n'}, memory)
    with torch.no_grad():
        values["weight"].zero_()
        values["count"].add_(1)
    snapshot.write(Storage(), str(path))
    written = load(path.read_bytes())
    assert written.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(written[name], value)
        assert written[name].dtype == value.dtype
    assert len(snapshot.body) == snapshot_bytes(values)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"epoch": "3", "ü": '"\n'}


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    path = tmp_path / "x.safetensors"
    Snapshot.of({"a": torch.ones(2)}, {}, None).write(Storage(), str(path))
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"x\.safetensors: no space"):
        Snapshot.of({"a": torch.zeros(2)}, {}, None).write(Storage(), str(path))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
