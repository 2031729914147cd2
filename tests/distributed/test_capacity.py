"""Room for actors and banks on the nodes that are there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from multimem_ray.distributed import capacity
from multimem_ray.distributed.executor import Pool, node_cores
from multimem_ray.distributed.pool import actor_pool
from multimem_ray.distributed.session import is_private
from multimem_ray.errors import ClusterError, ConfigError
from multimem_ray.progress import Progress
from tests.small import small_config

NODES = [{"CPU": 0.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found = [dict(node) for node in NODES]
    monkeypatch.setattr(capacity, "live_nodes", lambda: found)
    return found


def test_room_is_counted_node_by_node(nodes: list[dict[str, Any]]) -> None:
    assert capacity.capacity({"GPU": 1}) == 2
    assert capacity.capacity({"GPU": 0.1}) == 20
    assert capacity.capacity({"CPU": 2.0}) == 4 + 1, (
        "two cores of different nodes are no room for two"
    )
    assert capacity.capacity({"CPU": 3, "GPU": 1}) == 2
    assert capacity.capacity({"TPU": 1}) == 0
    assert node_cores(nodes, {"GPU": 1}) == 8
    assert node_cores(nodes, {"TPU": 1}) == 1


def test_a_machine_alone_says_what_it_lacks(nodes: list[dict[str, Any]]) -> None:
    del nodes
    quiet = Progress(Console(quiet=True))
    assert not capacity.wait_for_capacity({"GPU": 2}, "resources.train.gpus", quiet, private=True)
    with pytest.raises(ConfigError, match=r"resources\.train\.gpus asks for 4 GPU, which this"):
        capacity.wait_for_capacity({"GPU": 4}, "resources.train.gpus", quiet, private=True)


def test_nodes_that_never_come_end_the_wait(
    ray_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del ray_session
    monkeypatch.setattr(capacity, "_PATIENCE_S", 1.0)
    text = io.StringIO()
    said = Progress(Console(file=text, width=200), every_s=0.1)
    with pytest.raises(ClusterError, match=r"no node with 9 GPU \(resources\.score\.gpus\)"):
        capacity.wait_for_capacity({"GPU": 9}, "resources.score.gpus", said, private=False, ask=2)
    assert "waiting for nodes: none has 9 GPU" in text.getvalue()
    assert "still waiting" in text.getvalue()


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
