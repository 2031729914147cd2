"""Compiled towers train the models that others train."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from multimem_ray.models.contrastive import compiled
from multimem_ray.training import train_state
from multimem_ray.training.bank import Bank
from multimem_ray.training.decode import training_samples
from tests.small import small_run
from tests.training.epochs import epoch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    yield
    torch.compiler.reset()


def both(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = []
    for wanted in ("true", "false"):
        run, shards = small_run(folder, f"training.compile={wanted}")
        decoded = [s for shard in shards.scored for s in training_samples(run, shard)]
        bank = Bank(run, ["000", "001"], CPU, threads=2)
        bank.train_epoch(0, epoch(run, decoded, 0))
        found.append({m.id: m.model.state_dict() for m in bank.models})
    return found[0], found[1]


def test_compiled_towers_give_the_same_weights_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(graph: Any, _: Any) -> Any:
        calls.append(graph)
        return graph.forward

    # The tracing of the real thing, without a compiler.
    monkeypatch.setattr(train_state, "compiled", partial(compiled, backend=counted))
    made, plain = both(tmp_path)
    assert calls
    for model_id, weights in plain.items():
        assert made[model_id].keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(made[model_id][name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_inductor_trains_the_same_model(tmp_path: Path) -> None:
    made, plain = both(tmp_path)
    for model_id, weights in plain.items():
        for name, value in weights.items():
            torch.testing.assert_close(made[model_id][name], value, atol=1e-3, rtol=0)
