"""The state of a model: optimizers that the presets ask for, and checkpoints."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from threading import Lock

import pytest
import torch

from multimem_ray.config import ModelConfig, TrainingConfig
from multimem_ray.mitigation.policy import Policies, SamplePolicy
from multimem_ray.modalities import registry
from multimem_ray.models.build import build_model
from multimem_ray.run import Run
from multimem_ray.training.train_state import TrainState, build_optimizer, load_state
from tests.small import small_run

CPU = torch.device("cpu")


def load(run: Run, policies: Policies | None = None) -> TrainState:
    return load_state(run, "001", CPU, Lock(), policies or Policies())


def test_a_model_starts_from_its_seed(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    one, two = load(run), load(run)
    other = load_state(run, "000", CPU, Lock(), Policies())
    assert (one.id, one.number, one.epoch, one.step) == ("001", 1, 0, 0)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("sets", "same"),
    [
        (("design.models=4",), []),
        (("design.models=4", "training.shared_init=true"), [(0, 1), (2, 3)]),
        (("design.kind=three_folds", "design.models=6"), [(0, 1, 2), (3, 4, 5)]),
    ],
)
def test_models_that_are_compared_may_start_alike(
    tmp_path: Path, sets: tuple[str, ...], same: list[tuple[int, ...]]
) -> None:
    run, _ = small_run(tmp_path, *sets)
    ids = run.design.model_ids()
    starts = [load_state(run, i, CPU, Lock(), Policies()).model for i in ids]
    first = [next(p for p in model.parameters() if p.ndim > 1) for model in starts]
    groups = {number: own for own in same for number in own}
    for a, b in combinations(range(len(ids)), 2):
        assert torch.equal(first[a], first[b]) == (b in groups.get(a, ())), (a, b)


def test_a_checkpoint_keeps_place_losses_and_what_waits(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    state = load(run)
    state.epoch, state.step, state.seen = 1, 7, 10
    state.losses = [torch.tensor(1.5), torch.tensor(0.5)]
    state.skipped = [torch.tensor(False)] * 2
    state.save([11, 4], passed=12, last="s12")
    again = load(run)
    assert (again.epoch, again.step, again.seen) == (1, 7, 10)
    assert (again.passed, again.last, again.waited) == (12, "s12", frozenset({4, 11}))
    assert [float(loss) for loss in again.losses] == [1.5, 0.5]
    assert [place for place in range(14) if again.needs(place)] == [4, 11, 12, 13]
    # Stopped before that place again, it still stands there; after it, what waited was met.
    again.save([4], passed=6, last="s6")
    assert (load(run).passed, load(run).last, load(run).waited) == (12, "s12", frozenset({4, 11}))
    again.save([13], passed=20, last="s20")
    assert (load(run).passed, load(run).waited) == (20, frozenset({13}))
    again.next_epoch()
    again.save()
    assert (load(run).epoch, load(run).passed, load(run).losses) == (2, 0, [])


def test_a_checkpoint_keeps_the_state_of_the_policy(tmp_path: Path) -> None:
    class Remembering(SamplePolicy):
        kept: torch.Tensor | None = torch.tensor([[5, 1]])

        def state(self) -> torch.Tensor | None:
            return self.kept

        def load(self, state: torch.Tensor) -> None:
            self.kept = state + 1

    run, _ = small_run(tmp_path)
    policies = Policies(lambda _: Remembering())
    load(run, policies).save()
    assert torch.equal(load(run, policies).policy.state(), torch.tensor([[6, 2]]))  # type: ignore[arg-type]


def test_optimizers_are_as_configured() -> None:
    model = build_model(ModelConfig(), [registry.create("image"), registry.create("text")], 0)
    sgd = build_optimizer(model, TrainingConfig(optimizer="sgd", momentum=0.8, weight_decay=5e-4))
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["nesterov"], group["momentum"], group["weight_decay"]) == (True, 0.8, 5e-4)
    assert sgd.param_groups[1]["weight_decay"] == 0.0
    adamw = build_optimizer(model, TrainingConfig(betas=(0.9, 0.98), eps=1e-6))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.9, 0.98)
    assert adamw.param_groups[0]["eps"] == 1e-6
    assert sum(len(g["params"]) for g in sgd.param_groups) == len(list(model.parameters()))
