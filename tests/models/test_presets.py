"""Every preset on real recordings: it is built, takes a step, and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimem_ray.errors import ConfigError
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.build import build_model
from multimem_ray.models.presets import preset_description, preset_names
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.setup import apply_overrides, inspect, resolve
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage
from tests.small import first_samples, scored, small_run, trained, write_shards

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


def run_of(shard: Path, folder: Path, preset: str, samples: int, *sets: str) -> Run:
    """An audit of the first samples of a shard with two models of a preset and one epoch."""
    raw: dict[str, Any] = {
        "output": str(folder / "out"),
        "data": {"shards": str(first_samples(shard, folder / "shards", samples))},
        "held_out": {"fraction": 0.2},
        "design": {"models": 2},
        "model": {"preset": preset},
        "training": {"epochs": 1, "batch_size": 16},
        "scoring": {"views": 2},
        "resources": {"cache_dir": str(folder / "cache")},
    }
    return inspect(resolve(apply_overrides(raw, sets)))[0]


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
    run = run_of(shared_data(data)[0], tmp_path, preset, 100, *sets)
    assert run.modalities == modalities
    lines = trained(run)
    assert all(line["step"] >= 1 and np.isfinite(line["loss"]) for line in lines.values())
    table = scored(run)
    assert table.num_rows > 50
    assert not list((tmp_path / "out").glob("errors/**/*.parquet"))
    values = table["multimem"].to_numpy()
    assert np.isfinite(values).all()
    assert values.std() > 0
    present = table["modalities"].to_pylist()
    if data == "esc10_ait":
        lacking = [row for row, names in enumerate(present) if "image" not in names]
        assert 0 < len(lacking) < len(present)
        pair = table["pair_image_text"].to_pylist()
        assert all(pair[row] is None for row in lacking)
    else:
        assert all(tuple(names) == modalities for names in present)


def test_any_of_five_captions_is_a_view(shared_data: Shared, tmp_path: Path) -> None:
    sets = ["data.fields={image: jpg, text: json.captions}", "modalities.text.dropout=0"]
    shard = shared_data("coco_cc_it")[0]
    run = run_of(shard, tmp_path, "clip-tiny", 20, *sets)
    sample = next(item for item in read_shard(str(shard), Storage()) if isinstance(item, Sample))
    arrays = run.decoder.decode(sample)
    assert len(arrays["text"]) == 5
    batch = run.decoder.stacked([sample.key], [arrays], 0, range(60))
    assert len(run.decoder.views(batch).values["text"].unique(dim=0)) == 5


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
    run = run_of(shared_data(data)[0], tmp_path, preset, 30, *sets)
    seed_model = build_model(run.config.model, run.decoder.modalities, 0)
    lines = trained(run)
    assert all(line["step"] >= 1 and np.isfinite(line["loss"]) for line in lines.values())
    model = build_model(run.config.model, run.decoder.modalities, 0)
    run.model_folder("000").load_into(model)
    for name in run.modalities:
        moved = [
            not torch.equal(a, b)
            for a, b in zip(
                seed_model.towers[name].parameters(),
                model.towers[name].parameters(),
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
