"""Scoring on a store that fails, cuts and delays one request in twenty, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from multimem_ray.progress import Progress
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.scoring.held_out_plan import plan_held_out
from multimem_ray.scoring.pipeline import _held_out_rows, shard_rows
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import apply_overrides, open_run, resolve
from multimem_ray.storage import Storage
from multimem_ray.store.commits import commit_log
from tests.faulty_s3 import faulty
from tests.s3 import S3Server
from tests.scoring.bank_of import finish_models
from tests.small import small_config, write_shards


@pytest.mark.slow
def test_a_failing_store_costs_time_and_nothing_else(tmp_path: Path, s3_server: S3Server) -> None:
    local = write_shards(tmp_path / "shards", 60, 6)
    bucket = s3_server.bucket()
    for shard in sorted(local.glob("*.tar")):
        s3_server.storage.write_atomic(f"{bucket}/shards/{shard.name}", shard.read_bytes())
    plain = small_config(local, tmp_path / "out")
    keys, values = run_all(plain.model_dump(mode="json"), [])
    with faulty(s3_server.endpoint, share=0.05, late_s=2.0, seed=1) as store:
        sets = [
            f"data.shards={bucket}/shards/*.tar", f"output={bucket}/out",
            f"storage.endpoint_url={store.endpoint}", "storage.timeout_s=20",
        ]  # fmt: skip
        found_keys, found_values = run_all(plain.model_dump(mode="json"), sets)
        assert sum(store.spoiled.values()) > 100
        assert store.spoiled["500"] + store.spoiled["503"]
        assert store.spoiled["cut"]
    assert sorted(found_keys) == sorted(keys)
    order, found_order = np.argsort(keys), np.argsort(found_keys)
    np.testing.assert_allclose(
        np.array(values)[order], np.array(found_values)[found_order], atol=1e-5
    )
    names = [info.url for info in s3_server.storage.list(f"{bucket}/out")]
    assert not [name for name in names if "/parts/" in name]
    assert len([name for name in names if "/commits/" in name]) == 6


def run_all(raw: dict[str, object], sets: list[str]) -> tuple[list[str], list[list[float]]]:
    """Score all shards in this process; keys and CMC under each model."""
    run, shards = open_run(resolve(apply_overrides(raw, sets)))
    finish_models(run)
    log = commit_log(run)
    rows = _held_out_rows(plan_held_out(run, shards, Progress(), ShardSource(run)))
    scorer = ShardScorer(run, restarted=False)
    for row in [*rows, *shard_rows(log, log.split(shards.scored)[1])]:
        scorer(row)
    done, todo = log.split(shards.scored)
    assert not todo
    keys: list[str] = []
    values: list[list[float]] = []
    for shard in shards.scored:
        with Storage(run.config.storage).open(log.data_url("scores", shard.url)) as stream:
            table = pq.read_table(stream)
        keys += table["key"].to_pylist()
        values += table["cmc"].to_pylist()
    assert len(keys) == sum(commit.rows for commit in done)
    return keys, values
