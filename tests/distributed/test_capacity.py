"""Room for actors and banks on the nodes that are there."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from multimem_ray.distributed import capacity
from multimem_ray.errors import ClusterError, ConfigError
from multimem_ray.progress import Progress

NODES = [{"CPU": 0.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found = [dict(node) for node in NODES]
    monkeypatch.setattr(capacity, "live_nodes", lambda: found)
    return found


def test_room_is_counted_node_by_node(nodes: list[dict[str, Any]]) -> None:
    del nodes
    assert capacity.capacity({"GPU": 1}) == 2
    assert capacity.capacity({"GPU": 0.1}) == 20
    assert capacity.capacity({"CPU": 2.0}) == 4 + 1, (
        "two cores of different nodes are no room for two"
    )
    assert capacity.capacity({"CPU": 3, "GPU": 1}) == 2
    assert capacity.capacity({"TPU": 1}) == 0


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
