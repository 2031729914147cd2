"""Several Ray Train workers to a bank: the models of one worker, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.audit import train
from multimem_ray.config import Config
from tests.killing import killed_once
from tests.small import small_config, write_shards
from tests.test_audit import quiet
from tests.test_growing import assert_same_models

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=60, shards=3)


@pytest.fixture(scope="module")
def alone(shards: Path, ray_session: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    del ray_session
    config = small_config(
        shards, tmp_path_factory.mktemp("alone") / "out", "training.epochs=30", LONG
    )
    train(config, quiet())
    return config


LONG = "training.warmup_steps=4"
RANKS = "resources.train.workers_per_bank=2"


def history(config: Config, model_id: str = "000") -> list[dict[str, Any]]:
    text = Path(config.output, "models", model_id, "history.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_two_workers_train_the_models_of_one(shards: Path, alone: Config, tmp_path: Path) -> None:
    config = small_config(shards, tmp_path / "out", "training.epochs=30", LONG, RANKS)
    train(config, quiet())
    assert_same_models(alone, config, 1e-3)
    for one, two in zip(history(alone), history(config), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-3)
        assert (two["samples"], two["step"]) == (one["samples"], one["step"])
    assert history(config)[-1]["held_out_recall"]


def test_a_killed_rank_goes_on_from_the_checkpoint(
    shards: Path, alone: Config, tmp_path: Path
) -> None:
    config = small_config(shards, tmp_path / "out", "training.epochs=30", LONG, RANKS)
    checkpoint = Path(config.output, "models", "001", "checkpoint.safetensors")
    with killed_once(checkpoint, most=1):
        train(config, quiet())
    assert_same_models(alone, config, 1e-3)
    assert [line["epoch"] for line in history(config)] == list(range(30))
