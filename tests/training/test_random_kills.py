"""Whatever dies while a cluster trains, and whenever: the models of an undisturbed run.

A bank's worker, a node with all that is on it, the driver: killed with -9 at a random moment, twice
in each run. A driver that died, or gave up, is started again with the same command.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from safetensors.numpy import load_file

from multimem_ray.audit import train
from multimem_ray.config import Config
from multimem_ray.progress import Progress
from tests.nodes import Nodes, drive, three_nodes, wait_for
from tests.small import small_config, write_shards

VICTIMS = ("trainer", "driver", "node")
EPOCHS, MODELS = 40, 4
RUNS = 10
STARTS = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=200, shards=4)


@pytest.fixture(scope="module")
def undisturbed(
    shards: Path, ray_session: object, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    config = config_of(shards, tmp_path_factory.mktemp("undisturbed"))
    train(config, Progress(Console(quiet=True)))
    return weights_of(Path(config.output))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with three_nodes() as found:
        yield found


def config_of(shards: Path, folder: Path, *sets: str) -> Config:
    return small_config(
        shards,
        folder / "out",
        f"design.models={MODELS}",
        f"training.epochs={EPOCHS}",
        "resources.train.models_per_bank=2",
        *sets,
    )


def weights_of(output: Path) -> dict[str, dict[str, Any]]:
    files = sorted((output / "models").glob("*/model.safetensors"))
    return {file.parent.name: load_file(file) for file in files}


@pytest.mark.parametrize("seed", range(RUNS))
def test_training_survives_what_is_killed(
    seed: int, shards: Path, undisturbed: dict[str, Any], nodes: Nodes, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    victims = [VICTIMS[seed % 3], VICTIMS[(seed + 1 + seed // 3 % 2) % 3]]
    config = config_of(shards, tmp_path, f"resources.ray_address={nodes.address}")
    path, output, log = tmp_path / "run.yaml", Path(config.output), tmp_path / "log"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    for _ in range(STARTS):
        driver = drive("train", path, log)
        try:
            while victims and driver.poll() is None:
                later = epochs(output) + 1 + chance.randrange(EPOCHS)
                if not wait_for(trained(output, min(later, MODELS * EPOCHS // 2)), driver, 200):
                    break
                time.sleep(chance.random() / 2)
                if not kill(victims[0], nodes, driver):
                    break
                victims.pop(0)
            driver.wait(400)
        finally:
            driver.kill()
            driver.wait()
        if driver.returncode == 0:
            break
    assert driver.returncode == 0, log.read_text()[-3000:]
    assert not victims, f"{victims} came to no harm: the run was too fast"

    found = weights_of(output)
    assert found.keys() == undisturbed.keys()
    for model, weights in found.items():
        assert weights.keys() == undisturbed[model].keys()
        for name, value in weights.items():
            np.testing.assert_allclose(value, undisturbed[model][name], atol=1e-5, err_msg=name)
    for history in output.glob("models/*/history.jsonl"):
        assert len(history.read_text().splitlines()) == EPOCHS


def epochs(output: Path) -> int:
    """Epochs that all models together have in their histories."""
    return sum(len(h.read_text().splitlines()) for h in output.glob("models/*/history.jsonl"))


def trained(output: Path, count: int) -> Iterator[bool]:
    while True:
        yield epochs(output) >= count


def kill(victim: str, nodes: Nodes, driver: Any) -> bool:
    """Kill -9 one; False if it was not there before the driver ended."""
    if victim == "driver":
        driver.kill()
        return True
    if victim == "node":
        nodes.kill_node()
        return True

    return nodes.kill_worker(driver, "RayTrainWorker")
