"""Retrieval while training: on held-out samples, and without a trace in the models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimem_ray.models.build import build_model
from multimem_ray.run import Run
from multimem_ray.training.validation import HeldOutRetrieval
from tests.small import small_run


def keys_used(run: Run, monkeypatch: pytest.MonkeyPatch, made: list[str]) -> None:
    decode = run.decoder.decode
    monkeypatch.setattr(
        run.decoder, "decode", lambda sample: (made.append(sample.key), decode(sample))[1]
    )


def test_only_held_out_samples_and_no_more_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.4", "training.held_out_samples=5")
    keys: list[str] = []
    keys_used(run, monkeypatch, keys)
    HeldOutRetrieval(run, shards.scored)
    assert len(keys) == 5
    assert run.held_out_rule.is_held_out(keys, shards.scored[0].url).all()


def test_held_out_shards_are_used_where_they_are_h(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run(tmp_path)
    last = max((tmp_path / "shards").glob("*.tar"))
    run, shards = small_run(tmp_path, f"held_out.shards={last}")
    keys: list[str] = []
    keys_used(run, monkeypatch, keys)
    HeldOutRetrieval(run, shards.scored)
    assert keys == [f"s{number:04d}" for number in range(20, 40)]


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.4")
    model = build_model(run.config.model, run.decoder.modalities, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = HeldOutRetrieval(run, shards.scored).measure(model)
    assert set(found) == {"audio_image", "audio_text", "image_text"}
    assert all(0.0 <= value <= 1.0 for value in found.values())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value)
    assert all(p.grad is None for p in model.parameters())


def test_about_twenty_times_and_at_the_end(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "training.epochs=130")
    made = HeldOutRetrieval(run, shards.scored)
    due = [epoch for epoch in range(130) if made.is_due(epoch)]
    assert due[-1] == 129
    assert 20 <= len(due) <= 23
    none, _ = small_run(tmp_path, "training.held_out_samples=0")
    assert not HeldOutRetrieval(none, shards.scored).is_due(1)


def test_it_is_no_part_of_what_a_model_is(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    other, _ = small_run(tmp_path, "training.held_out_samples=3")
    assert run.fingerprint == other.fingerprint
    assert run.training_fingerprint == other.training_fingerprint
