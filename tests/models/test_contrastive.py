"""Fine-tuning audits: one start for all, frozen towers, and what is left to train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimem_ray.errors import ConfigError, ModelError
from multimem_ray.models.build import build_model
from multimem_ray.models.contrastive import ContrastiveModel
from multimem_ray.run import Run
from tests.small import scored, small_run, trained


def start(tmp_path: Path) -> str:
    """A finished reference model, as the folder of its weights."""
    run, _ = small_run(tmp_path / "first")
    trained(run)
    return run.model_folder("000").url


def build(run: Run, seed: int) -> ContrastiveModel:
    return build_model(run.config.model, run.decoder.modalities, seed)


@pytest.mark.parametrize("freeze", ["[audio, image, text]", "['*']"])
def test_frozen_towers_score_zero(freeze: str, tmp_path: Path) -> None:
    init = start(tmp_path)
    run, _ = small_run(tmp_path / "second", f"model.init={init}", f"model.freeze={freeze}")
    lines = trained(run)
    assert all(line["loss"] > 0 for line in lines.values())
    table = scored(run)
    for column in ("multimem", "pair_image_text", "attribution_text"):
        found = table[column].drop_null().to_numpy()
        assert len(found) > 5
        assert abs(found).max() < 1e-6


def test_every_model_starts_from_the_given_weights_and_moves_what_is_free(tmp_path: Path) -> None:
    init = start(tmp_path)
    run, _ = small_run(tmp_path / "second", f"model.init={init}", "model.freeze=[image]")
    before = build(run, 1).state_dict()
    for name, value in build(run, 2).state_dict().items():
        assert torch.equal(value, before[name])
    trained(run)
    for model_id in run.design.model_ids():
        model = build_model(run.config.model, run.decoder.modalities, 0, weights=False)
        run.model_folder(model_id).load_into(model)
        for name, value in model.state_dict().items():
            frozen = name.startswith("towers.image.")
            if frozen or name.startswith("towers.text."):
                assert torch.equal(value, before[name]) == frozen, name


def test_running_statistics_of_a_frozen_tower_stay(tmp_path: Path) -> None:
    tower = "model.towers.image={kind: clip_image, arch: RN50, layers: [1, 1, 1, 1], width: 8}"
    size = ("modalities.image.size=32", "data.fields={image: png, text: txt}")
    run, _ = small_run(tmp_path, tower, *size, "model.freeze=[image]")
    model = build(run, 0)
    assert not model.towers["image"].training
    assert model.towers["text"].training
    statistics = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    assert statistics
    values = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    model.embed(model.prepare({"image": values}))
    for name, buffer in model.named_buffers():
        if "running" in name:
            assert torch.equal(buffer, statistics[name])


def test_patterns_and_weights_that_do_not_fit_say_so(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path, "model.freeze=[imagee]")
    with pytest.raises(ConfigError, match=r"model\.freeze: 'imagee' .*did you mean 'image'"):
        build(run, 0)
    run, _ = small_run(tmp_path, "model.init=/nowhere/x.safetensors")
    with pytest.raises(ModelError, match=r"/nowhere/x\.safetensors: cannot be loaded"):
        build(run, 0)
    init = start(tmp_path)
    run, _ = small_run(tmp_path, f"model.init={init}", "model.dim=8")
    with pytest.raises(ModelError, match="do not fit the configured model"):
        build(run, 0)
