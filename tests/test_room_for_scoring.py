"""What a later stage asks for is missed before the first epoch, and by the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.audit import audit, plan
from multimem_ray.errors import ConfigError
from tests.small import QUIET, small_config, write_shards


def test_a_gpu_for_scoring_that_is_not_there_is_told_before_the_training(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", samples=20)
    sets = ("resources.score.gpus=8", "resources.train.gpus=0", "plan.gpus=0")
    config = small_config(shards, tmp_path / "out", *sets)
    with pytest.raises(ConfigError, match=r"resources\.score\.gpus asks for 8"):
        audit(config, QUIET, executor="local")
    assert not (tmp_path / "out" / "models").exists()
    assert any("resources.score.gpus asks for 8" in hint for hint in plan(config, QUIET).hints)
