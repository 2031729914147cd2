"""Every preset on real recordings: it is built, takes a step, and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.contrastive import build_model
from multimem_ray.models.presets import preset_description, preset_names
from multimem_ray.setup import resolve
from tests.small import small_run, write_shards
from tests.trial import score, train, trial_run

Shared = Callable[[str], list[Path]]

TINY = [
    ("audioclip-tiny", "esc10_ait", ("audio", "image", "text")),
    ("avt-clip-tiny", "grid_s1_avt", ("audio", "text", "video")),
    ("avit-clip-tiny", "grid_s1_avt", ("audio", "image", "text", "video")),
    ("clip-tiny", "coco_cc_it", ("image", "text")),
]
FULL = [
    ("clip", "coco_cc_it"),
    ("audioclip", "esc10_ait"),
    ("avt-clip", "grid_s1_avt"),
    ("avit-clip", "grid_s1_avt"),
]


def test_the_models_of_the_papers_are_there_with_a_small_sibling_each() -> None:
    assert {name for name, _ in FULL} <= set(preset_names())
    assert {name for name, *_ in TINY} == {f"{name}-tiny" for name, _ in FULL}
    for name in preset_names():
        resolve({"output": "o", "data": {"shards": "s"}, "model": {"preset": name}})
        assert 20 < len(preset_description(name)) < 110


def test_audioclip_has_its_published_recipe() -> None:
    config = resolve({"output": "o", "data": {"shards": "s"}, "model": {"preset": "audioclip"}})
    training = config.training
    assert (training.optimizer, training.momentum, training.lr) == ("sgd", 0.9, 1e-5)
    assert (training.schedule, training.gamma, training.weight_decay) == ("exponential", 0.96, 5e-4)
    assert (training.batch_size, training.epochs, config.model.dim) == (64, 50, 1024)
    assert config.modalities["audio"]["sample_rate"] == 44100


@pytest.mark.parametrize(("preset", "data", "modalities"), TINY)
def test_a_tiny_preset_trains_and_scores_real_data(
    preset: str, data: str, modalities: tuple[str, ...], shared_data: Shared, tmp_path: Path
) -> None:
    sets = ["data.fields={image: jpg, text: json.captions}"] if data == "coco_cc_it" else []
    run, shards = trial_run(shared_data(data)[:1], tmp_path / "out", preset, *sets)
    assert run.modalities == modalities
    lines = train(run, shards, 64)
    assert all(line["step"] >= 1 and np.isfinite(line["loss"]) for line in lines.values())
    scored = score(run, shards)
    receipt = scored.receipt
    assert receipt.errors == 0
    assert receipt.rows > 50
    assert scored.scores.num_rows == receipt.rows
    values = scored.scores["multimem"].to_numpy()
    assert np.isfinite(values).all()
    assert values.std() > 0
    present = scored.scores["modalities"].to_pylist()
    if data == "esc10_ait":
        lacking = [row for row, names in enumerate(present) if "image" not in names]
        assert 0 < len(lacking) < len(present)
        pair = scored.scores["pair_image_text"].to_pylist()
        assert all(pair[row] is None for row in lacking)
    else:
        assert all(tuple(names) == modalities for names in present)


def test_any_of_five_captions_is_a_view(shared_data: Shared, tmp_path: Path) -> None:
    sets = ["data.fields={image: jpg, text: json.captions}", "modalities.text.dropout=0"]
    run, shards = trial_run(shared_data("coco_cc_it"), tmp_path / "out", "clip-tiny", *sets)
    from multimem_ray.training.decode import training_samples

    sample = next(iter(training_samples(run, shards.scored[0])))
    assert len(sample.arrays["text"]) == 5
    views = {
        run.decoder.views(sample.key, sample.arrays, 0, view)["text"].tobytes()
        for view in range(60)
    }
    assert len(views) == 5


def test_a_preset_uses_its_own_modalities_only(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path, "model.preset=clip-tiny")
    assert run.modalities == ("image", "text")


def test_shards_without_one_of_its_modalities_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards")
    with pytest.raises(ConfigError, match=r"without video; say where it lies in data\.fields\.vid"):
        small_run(tmp_path, "model.preset=avt-clip-tiny")
    fields = "data.fields={image: png, text: txt}"
    with pytest.raises(ConfigError, match=r"data\.fields names image, text, without audio"):
        small_run(tmp_path, "model.preset=audioclip-tiny", fields)
    run, _ = small_run(
        tmp_path, "model.preset=audioclip-tiny", fields, "model.modalities=[image, text]"
    )
    assert run.modalities == ("image", "text")


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "data"), FULL)
def test_a_full_size_preset_takes_a_step(
    preset: str, data: str, shared_data: Shared, tmp_path: Path
) -> None:
    sets = ("training.batch_size=4", "scoring.views=1", "training.lr=1e-3")
    run, shards = trial_run(shared_data(data)[:1], tmp_path / "out", preset, *sets)
    seed_model = build_model(run.config.model, run.decoder.modalities, 0)
    lines = train(run, shards, 12)
    assert all(line["step"] >= 1 and np.isfinite(line["loss"]) for line in lines.values())
    trained = build_model(run.config.model, run.decoder.modalities, 0)
    run.model_folder("000").load_into(trained)
    for name in run.modalities:
        moved = [
            not torch.equal(a, b)
            for a, b in zip(
                seed_model.towers[name].parameters(),
                trained.towers[name].parameters(),
                strict=True,
            )
        ]
        assert any(moved), name


def test_framewise_video_is_the_mean_over_frames() -> None:
    towers = {"video": {"kind": "framewise", "frame": {"width": 4}}}
    config = resolve(
        {
            "output": "o",
            "data": {"shards": "s"},
            "model": {"dim": 8, "towers": towers, "modalities": ["text", "video"]},
        }
    )
    decoder = Decoder({"video": "mp4", "text": "txt"}, {"video": {"frames": 4, "size": 16}})
    model = build_model(config.model, decoder.modalities, 0).eval()
    raw = torch.randint(0, 255, (3, 4, 3, 16, 16), dtype=torch.uint8)
    whole = model.embed(model.prepare({"video": raw}))["video"]
    backwards = model.embed(model.prepare({"video": raw.flip(1)}))["video"]
    torch.testing.assert_close(whole, backwards)
    other = model.embed(model.prepare({"video": raw.flip(0)}))["video"]
    torch.testing.assert_close(whole.flip(0), other)
    assert (whole[0] - whole[1]).abs().max() > 1e-4
