"""How many actors there are, on a machine alone and on a cluster that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from multimem_ray.distributed import capacity
from multimem_ray.distributed.executor import Pool
from multimem_ray.distributed.pool import actor_pool
from multimem_ray.distributed.session import is_private
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from tests.small import small_config


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    there = [{"CPU": 0.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}]
    monkeypatch.setattr(capacity, "live_nodes", lambda: there)
    return there


def test_pools(nodes: list[dict[str, Any]], tmp_path: Path) -> None:
    quiet = Progress(Console(quiet=True))

    def pool(shards: int, *sets: str) -> Pool:
        resources = small_config(tmp_path, tmp_path / "out", *sets).resources
        private = is_private(resources.ray_address)
        return actor_pool(resources.score, shards, quiet, private=private)

    on_gpus, elsewhere = "resources.score.gpus=1", "resources.ray_address=somewhere"
    assert pool(100) == Pool(11, 11, 11)
    assert pool(5, on_gpus) == Pool(2, 2, 2)
    assert pool(100, elsewhere, on_gpus) == Pool(1, capacity.MOST_ASKED, 2)
    assert pool(1, elsewhere, on_gpus) == Pool(1, 1, 1)
    assert pool(100, "resources.score.actors=[1, 3]", on_gpus) == Pool(1, 3, 3)
    assert pool(2, "resources.score.actors=[1, 3]", on_gpus) == Pool(1, 3, 2)
    assert pool(2, "resources.score.actors=4") == Pool(4, 4, 4)
    nodes.clear()
    with pytest.raises(ConfigError, match=r"resources\.score\.gpus asks for 1 GPU"):
        pool(5, on_gpus)
