"""What is private to Ray: used where it is there, and missed by nobody where it is not."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from ray.train import RunConfig, ScalingConfig

from multimem_ray.distributed import private

API = "ray.train.v2.api.data_parallel_trainer"
CLEANER = "ray.train.v2._internal.callbacks.placement_group_callback"


def nothing() -> None:
    """A loop that does nothing."""


def test_a_ray_without_a_dashboard_gets_no_cleaner(tmp_path: Any) -> None:
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    counts = []
    for has_dashboard in (True, False):
        trainer_class: Any = private._trainer_class(has_dashboard)
        trainer = trainer_class(nothing, run_config=RunConfig(storage_path=str(tmp_path)))
        callbacks = trainer._create_default_callbacks()
        counts.append(sum(isinstance(one, PlacementGroupCleanerCallback) for one in callbacks))
    assert counts == [1, 0]


def test_without_the_cleaner_training_ends_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    monkeypatch.delattr(f"{CLEANER}.PlacementGroupCleanerCallback")
    assert private._trainer_class(has_dashboard=False) is DataParallelTrainer


def test_without_the_bare_trainer_the_one_of_torch_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted: list[dict[str, Any]] = []

    class Trainer:
        def __init__(self, loop: Any, **settings: Any) -> None:
            fitted.append({"loop": loop, **settings})

        def fit(self) -> None:
            fitted[-1]["fitted"] = True

    monkeypatch.setattr("ray.train.torch.TorchTrainer", Trainer)
    monkeypatch.setitem(sys.modules, API, None)
    scaling, config = ScalingConfig(num_workers=1), RunConfig()
    private.run_training(nothing, None, scaling, config, has_dashboard=False)
    assert fitted == [
        {
            "loop": nothing,
            "torch_config": None,
            "scaling_config": scaling,
            "run_config": config,
            "fitted": True,
        }
    ]
