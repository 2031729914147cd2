"""Whatever dies while a cluster scores, and whenever: every key once, the same scores.

Actors, the tasks that decode, a node with all that is on it, the driver: killed with -9 at a
random moment, twice in each run. A driver that died, or gave up, is started again with the same
command.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from multimem_ray.config import Config
from multimem_ray.distributed.on_ray import RayExecutor
from multimem_ray.progress import Progress
from multimem_ray.scoring.pipeline import score
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import open_run
from tests.nodes import Nodes, drive, three_nodes, wait_for
from tests.scoring.bank_of import finish_models
from tests.small import small_config, write_shards

SHARDS, SAMPLES = 12, 720
VICTIMS = ("actor", "reader", "node", "driver")
RUNS = 20
STARTS = 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=SAMPLES, shards=SHARDS)


@pytest.fixture(scope="module")
def undisturbed(
    shards: Path, ray_session: object, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = config_of(shards, folder)
    run, found = open_run(config)
    finish_models(run)
    score(run, found, Progress(Console(quiet=True)), ShardSource(run), RayExecutor())
    return rows_of(Path(config.output))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with three_nodes() as found:
        yield found


def config_of(shards: Path, folder: Path, *sets: str) -> Config:
    slow = (
        "data.plugins=[tests.scoring.sleepy]",
        "data.fields={audio: flac, image: png, text: txt, sleepy: json.source}",
        "scoring.batch_size=8",
    )
    return small_config(shards, folder / "out", *slow, "held_out.fraction=0.1", *sets)


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    """Score rows by key; every key once."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((output / "scores").rglob("*.parquet")):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            assert row["key"] not in found, f"{row['key']} was scored twice"
            found[row["key"]] = row
    return found


def plan_of(seed: int) -> tuple[str, list[str]]:
    """Partitioning and victims of a run: over twenty runs, each victim ten times."""
    layout = ("fused", "split")[seed % 2]
    return layout, [VICTIMS[seed % 4], VICTIMS[(seed + 1 + seed // 4 % 3) % 4]]


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_run_survives_what_is_killed(
    seed: int, shards: Path, undisturbed: dict[str, Any], nodes: Nodes, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    layout, victims = plan_of(seed)
    sets = (f"resources.score.layout={layout}", "resources.score.actors=2")
    config = config_of(shards, tmp_path, *sets, f"resources.ray_address={nodes.address}")
    run, _ = open_run(config)
    finish_models(run)
    path, output, log = tmp_path / "run.yaml", Path(config.output), tmp_path / "log"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    for _ in range(STARTS):
        driver = drive("score", path, log)
        try:
            while victims and driver.poll() is None:
                later = min(commits(output) + chance.randrange(4), SHARDS - 3)
                if not wait_for(committed(output, later), driver, 200):
                    break
                time.sleep(chance.random())
                if not kill(victims[0], nodes, driver):
                    break
                victims.pop(0)
            driver.wait(300)
        finally:
            driver.kill()
            driver.wait()
        if driver.returncode == 0:
            break
    said = log.read_text()
    assert driver.returncode == 0, said[-3000:]
    assert not victims, f"{victims} came to no harm: the run was too fast"

    found = rows_of(output)
    assert found.keys() == undisturbed.keys()
    for key, row in found.items():
        np.testing.assert_allclose(row["cmc"], undisturbed[key]["cmc"], atol=1e-5)
        assert row["multimem"] == pytest.approx(undisturbed[key]["multimem"], abs=1e-5)
    assert not list(output.rglob("*.tmp*"))
    assert "the sums agree" in said


def commits(output: Path) -> int:
    return len(list(output.glob("commits/*.json")))


def committed(output: Path, count: int) -> Iterator[bool]:
    """Begins when something was written: before that, there is nothing to lose."""
    while True:
        yield any(output.glob("*/parts/*/*")) + commits(output) > 0 and commits(output) >= count


def kill(victim: str, nodes: Nodes, driver: Any) -> bool:
    """Kill -9 one; False if it was not there before the driver ended."""
    if victim == "driver":
        driver.kill()
        return True
    if victim == "node":
        nodes.kill_node()
        return True
    names = {"actor": ("MapWorker",), "reader": ("decode", "Decode", "FlatMap", "flat_map")}[victim]

    def there() -> Iterator[bool]:
        while True:
            yield bool(nodes.workers(*names))

    if victim == "reader" and not wait_for(there(), driver, 5):
        names = ("MapWorker",)  # in the fused layout, actors read
    return nodes.kill_worker(driver, *names)
