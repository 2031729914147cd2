"""More models for a run that is over, and trainers that die: the models are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from multimem_ray.audit import audit, train
from multimem_ray.config import Config
from multimem_ray.distributed.executor import ExecutorName
from multimem_ray.errors import ResumeError
from multimem_ray.setup import open_run
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.stream import TrainingStream
from multimem_ray.training.worker import cache_folder
from tests.killing import killed_once
from tests.small import small_config, write_shards
from tests.test_audit import assert_same_scores, mtimes, quiet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=60, shards=3)


def weights(config: Config) -> dict[str, dict[str, torch.Tensor]]:
    found = sorted(Path(config.output, "models").glob("*/model.safetensors"))
    return {path.parent.name: load_file(path) for path in found}


def assert_same_models(a: Config, b: Config, atol: float) -> None:
    first, second = weights(a), weights(b)
    assert set(first) == set(second)
    for model_id, tensors in first.items():
        for name, value in tensors.items():
            torch.testing.assert_close(second[model_id][name], value, atol=atol, rtol=0)


def test_more_models_train_and_score_only_what_is_new(
    shards: Path, ray_session: Any, tmp_path: Path
) -> None:
    del ray_session
    grown = small_config(shards, tmp_path / "grown" / "out", "design.models=4")
    audit(grown, quiet())
    before = mtimes(Path(grown.output, "models"))
    eight = small_config(shards, tmp_path / "grown" / "out", "design.models=8")
    summary = audit(eight, quiet())
    after = mtimes(Path(grown.output, "models"))
    assert {path: after[path] for path in before} == before, "the four were left alone"
    assert len(weights(eight)) == 8
    assert [row["models"] for row in summary["reliability"]["growth"]] == [2, 4, 8, 16]

    fresh = small_config(shards, tmp_path / "fresh" / "out", "design.models=8")
    audit(fresh, quiet())
    assert_same_models(eight, fresh, 1e-6)
    assert_same_scores(eight.output, fresh.output)

    # The other way there is no way: the scores of eight are not those of four.
    with pytest.raises(ResumeError, match=r"design\.models: 8 → 4"):
        audit(grown, quiet())


@pytest.mark.parametrize("executors", [("ray",), ("local", "ray")])
def test_models_are_added_until_the_bound_and_are_those_of_a_given_number(
    shards: Path, ray_session: Any, tmp_path: Path, executors: tuple[ExecutorName, ...]
) -> None:
    del ray_session
    auto = ("design.models=auto", "design.reliability=0.999", "training.epochs=3")
    summary: dict[str, Any] = {}
    for place, executor in enumerate(executors, 1):
        bound = 8 if place == len(executors) else 6
        config = small_config(shards, tmp_path / "a" / "out", *auto, f"design.max_models={bound}")
        summary = audit(config, quiet(), executor=executor)
    assert [step["models"] for step in summary["growth"]["steps"]][-1] == 8
    assert (summary["growth"]["next"], summary["growth"]["stopped"]) == (None, "bound")
    assert summary["design"]["models"] == 8

    sets = ("design.models=8", "training.epochs=3")
    given = small_config(shards, tmp_path / "b" / "out", *sets)
    assert audit(given, quiet(), executor="local")["growth"] is None
    assert_same_models(config, given, 1e-5)
    assert_same_scores(config.output, given.output)
    models = mtimes(Path(config.output, "models"))
    again = audit(config, quiet(), executor="local")
    assert mtimes(Path(config.output, "models")) == models, "what is done is not done again"
    assert [step["models"] for step in again["growth"]["steps"]][-1] == 8


def test_a_killed_trainer_goes_on_from_its_checkpoint(
    shards: Path, ray_session: Any, tmp_path: Path
) -> None:
    del ray_session
    sets = ("training.epochs=40",)
    undisturbed = small_config(shards, tmp_path / "a" / "out", *sets)
    train(undisturbed, quiet())
    config = small_config(shards, tmp_path / "b" / "out", *sets)
    folder = Path(config.output, "models", "001")
    with killed_once(folder / "checkpoint.safetensors"):
        train(config, quiet())
    assert_same_models(undisturbed, config, 1e-5)
    lines = [json.loads(x) for x in (folder / "history.jsonl").read_text("utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == list(range(40)), "every epoch is told once"
    assert lines[1]["checkpoint_s"] > 0
    assert set(lines[-1]["held_out_recall"]) == {"audio_image", "audio_text", "image_text"}


def test_a_damaged_cache_changes_no_model(shards: Path, ray_session: Any, tmp_path: Path) -> None:
    del ray_session
    undisturbed = small_config(shards, tmp_path / "a" / "out")
    train(undisturbed, quiet())
    config = small_config(shards, tmp_path / "b" / "out")
    run, found = open_run(config)
    cache = DecodedCache(cache_folder(run), 10**9)
    stream = TrainingStream(run, found.scored, cache)
    for _ in stream.epoch(0):
        pass
    files = sorted(cache.folder.glob("*.arrow"))
    assert len(files) == 3, "as an interrupted training would leave them"
    for file in files:
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = bytes(255 - value for value in data[middle : middle + 2000])
        file.write_bytes(data)
    train(config, quiet())
    assert_same_models(undisturbed, config, 1e-6)


def test_banks_of_any_size_make_the_same_models(
    shards: Path, ray_session: Any, tmp_path: Path
) -> None:
    del ray_session
    configs = [
        small_config(
            shards,
            tmp_path / str(size) / "out",
            "design.models=4",
            f"resources.train.models_per_bank={size}",
            f"resources.train.decode={decode}",
        )
        for size, decode in ((4, "worker"), (1, "worker"), (2, "ray"))
    ]
    for config in configs:
        train(config, quiet())
    for config in configs[1:]:
        assert_same_models(configs[0], config, 1e-6)
