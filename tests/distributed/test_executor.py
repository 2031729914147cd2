"""What is done in this process, and what is asked of its machine."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from multimem_ray.config import ScoreResources
from multimem_ray.distributed.choice import make_executor
from multimem_ray.distributed.executor import (
    LOCAL,
    LocalExecutor,
    Pool,
    Row,
    fits,
    node_cores,
    total,
)
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress

QUIET = Progress(Console(file=io.StringIO()))
NODES = [{"CPU": 0.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}]


def test_nodes_are_counted() -> None:
    assert (total(NODES, "CPU"), total(NODES, "GPU"), total(NODES, "TPU")) == (11, 2, 0)
    assert [fits(node, {"CPU": 2.0}) for node in NODES] == [0, 4, 1]
    assert node_cores(NODES, {"GPU": 1}) == 8
    assert node_cores(NODES, {"TPU": 1}) == 1


def test_rows_are_done_in_their_order_by_one_actor() -> None:
    made = []

    class Doubling:
        def __init__(self, factor: int) -> None:
            made.append(factor)

        def __call__(self, row: Row) -> Row:
            return {"n": made[0] * row["n"]}

    rows = [{"n": n} for n in range(5)]
    pool = LOCAL.pool(ScoreResources(actors=3), 5, QUIET)
    assert pool == Pool(1, 1, 1)
    done = list(LOCAL.actors(Doubling, (2,), rows, pool, ScoreResources()))
    assert [row["n"] for row in done] == [0, 2, 4, 6, 8]
    assert made == [2]
    assert list(LOCAL.tasks(lambda row: {"n": -row["n"]}, rows[:2])) == [{"n": 0}, {"n": -1}]


def test_the_number_of_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    with LOCAL.session():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = LocalExecutor()
    monkeypatch.setattr(executor, "nodes", lambda: [{"CPU": 4.0, "GPU": 0.0}])
    executor.require({"CPU": 1.0}, "resources.train", QUIET, least=4)
    with pytest.raises(ConfigError, match=r"resources\.score\.gpus asks for 1 GPU, and this mach"):
        executor.pool(ScoreResources(gpus=1), 3, QUIET)


def test_epochs_are_shown_as_they_are_counted() -> None:
    text = io.StringIO()
    progress = Progress(Console(file=text, width=200), every_s=0.0)
    with progress.task("train", 4, unit="epochs") as shown:
        board = LOCAL.counter(shown, "train")
        board.advance("train", 2, loss=1.5)
        board.advance("other")
        assert board.look("train") == (2, {})
    assert "train: 2/4 epochs (50 %)" in text.getvalue()
    assert "loss 1.500" in text.getvalue()


def test_a_loop_runs_here_in_one_worker() -> None:
    done: list[Any] = []
    LOCAL.fit(done.append, 7, workers=1, gpus=0)
    assert done == [7]
    with pytest.raises(ConfigError, match=r"workers_per_bank = 2"):
        LOCAL.fit(done.append, 8, workers=2, gpus=0)


def test_executors_have_names() -> None:
    assert make_executor("local", None) is LOCAL
    assert make_executor(LOCAL, None) is LOCAL
    assert make_executor("ray", None).distributed
    unknown: Any = "dask"
    with pytest.raises(ConfigError, match="'ray' and 'local'"):
        make_executor(unknown, None)
