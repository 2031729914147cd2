"""A plan counts what there is, measures on demand, and starts and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from multimem_ray.config import TrainResources
from multimem_ray.errors import ConfigError
from multimem_ray.planning import probe
from multimem_ray.planning.estimate import (
    STARTS_OF_BANK,
    STARTS_OF_RUN,
    STARTS_OF_SCORING,
)
from multimem_ray.planning.plan import Plan, make_plan
from multimem_ray.progress import Progress
from multimem_ray.training.memory import BankPacking, pack
from tests.nodes import ENV, ROOT
from tests.small import small_config, write_shards


@pytest.fixture(autouse=True)
def _started_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a process takes to start is measured in one test only."""
    monkeypatch.setattr(probe, "start_seconds", lambda: 5.0)


def planned(tmp_path: Path, *sets: str, probing: bool = False, save: bool = False) -> Plan:
    if not (tmp_path / "shards").exists():
        write_shards(tmp_path / "shards")
    config = small_config(tmp_path / "shards", tmp_path / "out", *sets)
    return make_plan(config, Progress(), probing=probing, save=save)


def test_nothing_is_started_or_written(tmp_path: Path) -> None:
    before = ray.is_initialized()
    made = planned(tmp_path, probing=True)
    assert ray.is_initialized() == before
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()
    assert made.speed is not None
    assert made.estimate is not None
    parts = {k: v for k, v in made.as_json()["speed"].items() if isinstance(v, float)}
    assert all(value > 0 for value in parts.values()), parts
    assert made.estimate.wall_s > (STARTS_OF_BANK + STARTS_OF_SCORING + STARTS_OF_RUN) * 5
    assert made.estimate.cost is None
    names = dict(made.lines())
    assert {"shards", "banks", "wall time", "core-hours"} <= set(names)


def test_what_is_saved_is_what_is_shown(tmp_path: Path) -> None:
    made = planned(tmp_path, probing=True, save=True)
    saved = json.loads((tmp_path / "out" / "plan.json").read_text("utf-8"))
    assert saved["estimate"] == made.as_json()["estimate"]
    assert saved["fingerprint"] == made.run.fingerprint


def test_prices_make_a_cost_and_change_no_score(tmp_path: Path) -> None:
    prices = ("plan.prices.cpu_hour=0.05", "plan.prices.gpu_hour=1", "plan.cpus=4", "plan.gpus=2")
    made = planned(tmp_path, *prices, probing=True)
    assert made.estimate is not None
    assert made.estimate.cost == pytest.approx(made.estimate.wall_s / 3600 * (4 * 0.05 + 2))
    assert made.run.fingerprint == planned(tmp_path).run.fingerprint


def test_a_mistake_is_found_before_anything_is_paid(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.fields\.video"):
        planned(tmp_path, "data.fields={video: mp4, text: txt}")


def test_models_that_are_added_are_foretold(tmp_path: Path) -> None:
    (hint,) = [h for h in planned(tmp_path, "design.models=auto").hints if "auto" in h]
    assert hint.endswith("those of 4 models; a reliability of 0.8 is expected of about 16")
    spent = planned(tmp_path, "design.models=auto", "design.budget_hours=2").hints
    assert any("within design.budget_hours" in hint for hint in spent)


def test_layout() -> None:
    auto = TrainResources()
    assert pack(auto, 8, cpus=2, gpus=0) == BankPacking(8, 1, 2, 2)
    on_gpus = TrainResources(gpus=1)
    assert pack(on_gpus, 8, cpus=16, gpus=4) == BankPacking(2, 4, 2, 4)
    assert pack(on_gpus, 2, cpus=16, gpus=8) == BankPacking(1, 2, 1, 8)
    fixed = TrainResources(models_per_bank=3, concurrent_banks=2, cpus=1)
    assert pack(fixed, 8, cpus=16, gpus=0) == BankPacking(3, 2, 1, 1)
    assert pack(fixed, 8, 16, 0).banks(list("abcdefgh")) == [list("abc"), list("def"), list("gh")]


def test_banks_are_as_large_as_a_gpu_has_room_for() -> None:
    on_gpus = TrainResources(gpus=1)
    assert pack(on_gpus, 16, cpus=16, gpus=2, fit=100) == BankPacking(8, 2, 8, 8)
    assert pack(on_gpus, 16, cpus=16, gpus=2, fit=8) == BankPacking(8, 2, 8, 8)
    # Six fit: in two rounds of four, not in one of six and one of two.
    assert pack(on_gpus, 16, cpus=16, gpus=2, fit=6) == BankPacking(4, 2, 4, 8)
    assert pack(on_gpus, 16, cpus=16, gpus=2, fit=1).per_bank == 1
    assert pack(on_gpus, 16, cpus=16, gpus=2, fit=0).per_bank == 1, "one is tried"
    fixed = TrainResources(gpus=1, models_per_bank=5)
    assert pack(fixed, 16, cpus=16, gpus=2, fit=1).per_bank == 5, "what was asked for"
    assert pack(TrainResources(gpus=2, workers_per_bank=2), 4, 8, 4) == BankPacking(2, 2, 2, 4)


def test_the_plan_tells_what_fits(tmp_path: Path) -> None:
    sets = ("design.models=8", "resources.train.gpus=1", "plan.gpus=1", "plan.cpus=4")
    memory = planned(tmp_path, *sets).work.memory
    # Room for three models by the rule of ModelMemory.fit.
    room = (1e9 + memory.step + 3.5 * memory.state) / 0.85
    made = planned(tmp_path, *sets, f"plan.gpu_gb={room / 1e9}")
    assert memory.fit(room) == 3
    assert (made.work.layout.per_bank, made.work.banks) == (3, 3)
    assert made.work.bank_bytes == 3 * memory.state + memory.step
    assert "a GPU has" in dict(made.lines())["memory of a bank"]
    assert made.as_json()["work"]["memory"] == {"state": memory.state, "step": memory.step}
    tight = planned(tmp_path, *sets, "plan.gpu_gb=0.5")
    assert tight.work.layout.per_bank == 1
    assert any("training.micro_batch" in hint for hint in tight.hints)


def test_banks_are_no_larger_than_a_node() -> None:
    auto = TrainResources()
    assert pack(auto, 8, cpus=64, gpus=0, bank_cpus=16).cores == 16
    assert pack(TrainResources(gpus=1), 8, cpus=64, gpus=8, bank_cpus=32).cores == 8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_plan_is_near_the_run(shared_data: Callable[[str], list[Path]], tmp_path: Path) -> None:
    """The factor is generous: whoever shares the machine changes between the plan and the run."""
    found = shared_data("fsdd_mnist_ait")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"output: {tmp_path}/out\ndata: {{shards: {found[0].parent}/*.tar}}\n"
        f"resources: {{cache_dir: {tmp_path}/cache}}\ntraining: {{epochs: 10}}\n"
    )
    make = "from multimem_ray.cli import main; main()"
    for command in (["plan", str(path), "--probe", "--save"], ["audit", str(path)]):
        subprocess.run([sys.executable, "-c", make, *command], cwd=ROOT, env=ENV, check=True)
    compared = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["plan"]
    assert 1 / 3 < compared["total"]["ratio"] < 3, compared
    assert {"train", "score", "other"} < compared.keys()
