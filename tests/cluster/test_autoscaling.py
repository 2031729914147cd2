"""Runs on a cluster that starts as nothing but its head, grows with the work, and shrinks again.

The GPUs are simulated: Ray counts them, torch knows of none, and everything computes on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from multimem_ray.config import Config
from multimem_ray.setup import open_run
from tests.growing_cluster import GrowingCluster, growing_cluster
from tests.nodes import drive, wait_for
from tests.scoring.bank_of import finish_models
from tests.small import small_config, write_shards

SHARDS, SAMPLES, MOST = 18, 720, 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data"), samples=SAMPLES, shards=SHARDS)


@pytest.fixture
def cluster() -> Iterator[GrowingCluster]:
    with growing_cluster(MOST) as found:
        yield found


def saved(config: Config, folder: Path) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def scored_keys(output: Path) -> list[str]:
    files = sorted((output / "scores").rglob("*.parquet"))
    return [key for f in files for key in pq.read_table(f, partitioning=None)["key"].to_pylist()]


def test_scoring_grows_survives_a_lost_node_and_gives_all_back(
    shards: Path, cluster: GrowingCluster, tmp_path: Path
) -> None:
    config = small_config(
        shards,
        tmp_path / "out",
        # Shards that take their time, so that there is a middle in which to kill.
        "data.plugins=[tests.scoring.sleepy]",
        "data.fields={audio: flac, image: png, text: txt, sleepy: json.source}",
        "resources.score={gpus: 1, actors: [1, 3]}",
        f"resources.ray_address={cluster.address}",
    )
    run, _ = open_run(config)
    finish_models(run)
    output, log = Path(config.output), tmp_path / "log"

    def committed() -> Iterator[bool]:
        while True:
            yield len(cluster.workers()) >= MOST and any(output.glob("commits/*.json"))

    driver = drive("score", saved(config, tmp_path), log)
    try:
        assert wait_for(committed(), driver, 300), log.read_text()[-3000:]
        cluster.kill_node()
        before = len(list(output.glob("commits/*.json")))
        assert before < SHARDS, "scoring was over before a node died"
        driver.wait(400)
    finally:
        driver.kill()
        driver.wait()
    said = log.read_text()
    assert driver.returncode == 0, said[-3000:]
    assert "waiting for nodes: none has 1 GPU (resources.score.gpus) yet" in said
    keys = scored_keys(output)
    assert len(keys) == len(set(keys))
    assert "the sums agree" in said
    assert cluster.shrinks(120), "nodes stayed after the end"


@pytest.mark.parametrize("decode", ["worker", "ray"])
def test_training_finishes_on_nodes_of_one_core(
    decode: str, shards: Path, cluster: GrowingCluster, tmp_path: Path
) -> None:
    config = small_config(
        shards,
        tmp_path / "out",
        "design.models=4",
        "resources.train={gpus: 1, models_per_bank: 2, concurrent_banks: 2}",
        f"resources.train.decode={decode}",
        f"resources.ray_address={cluster.address}",
    )
    said = run_to_the_end("train", config, tmp_path, cluster)
    assert "training 4 reference models in 2 banks" in said
    assert len(list(Path(config.output).glob("models/*/DONE"))) == 4
    assert cluster.most >= 2
    assert cluster.shrinks(120), "nodes stayed after the end"


def test_auto_asks_for_what_is_not_there_yet(
    shards: Path, cluster: GrowingCluster, tmp_path: Path
) -> None:
    config = small_config(
        shards,
        tmp_path / "out",
        "design.models=4",
        "resources.train.gpus=1",
        "resources.score.gpus=1",
        f"resources.ray_address={cluster.address}",
    )
    said = run_to_the_end("audit", config, tmp_path, cluster)
    assert "waiting for nodes: none has 1 GPU (resources.train.gpus) yet" in said
    assert "the cluster has room for" in said
    assert cluster.most >= 2, "one node of three, where four banks have work"
    assert "the sums agree" in said
    assert cluster.shrinks(120), "nodes stayed after the end"


def run_to_the_end(command: str, config: Config, folder: Path, cluster: GrowingCluster) -> str:
    """Run a command, watching the cluster; returns what it said."""
    driver = drive(command, saved(config, folder), folder / "log")
    end = time.monotonic() + 600
    try:
        while driver.poll() is None and time.monotonic() < end:
            cluster.workers()
            time.sleep(0.5)
    finally:
        driver.kill()
        driver.wait()
    said = (folder / "log").read_text()
    assert driver.returncode == 0, said[-3000:]
    return said
