"""Which samples are the held-out set: the same, whoever looks."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from multimem_ray.distributed.on_ray import RayExecutor
from multimem_ray.errors import HeldOutError
from multimem_ray.progress import Progress
from multimem_ray.scoring import held_out_plan
from multimem_ray.scoring.held_out_plan import load_plan, plan_held_out
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import inspect
from multimem_ray.shards.writer import ShardWriter
from tests.scoring.test_held_out import planned
from tests.small import members, small_config, small_run


def test_the_plan_is_stored_and_followed(tmp_path: Path) -> None:
    run, shards = planned(tmp_path)
    plan = load_plan(run)
    assert plan == plan_held_out(run, shards, Progress(), ShardSource(run))
    for item in plan:
        assert run.held_out_rule.is_held_out(item.keys, item.shard).all()
    table = pq.read_table(run.path("held_out", "keys.parquet"))
    assert table.num_rows == sum(len(item.keys) for item in plan)
    other, _ = small_run(tmp_path, "held_out.fraction=0.25")
    assert load_plan(other) == []


def test_tasks_and_the_driver_find_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: object
) -> None:
    run, shards = planned(tmp_path)
    alone = load_plan(run)
    monkeypatch.setattr(held_out_plan, "ALONE_S", -1.0)
    assert held_out_plan._choose(run, shards, Progress(), RayExecutor(), ShardSource(run)) == alone


def test_a_modality_that_is_too_rare_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    def sample(number: int) -> dict[str, bytes]:
        every = members(number)
        return every if number < 2 else {"png": every["png"], "txt": every["txt"]}

    with ShardWriter(str(tmp_path / "in")) as writer:
        for number in range(40):
            writer.write(f"s{number:04d}", sample(number))
    run, shards = inspect(small_config(tmp_path / "in", tmp_path / "out"))
    with pytest.raises(HeldOutError, match=r"[01] of \d+ held-out samples have audio \(flac\)"):
        plan_held_out(run, shards, Progress(), ShardSource(run))
    assert not (tmp_path / "out" / "held_out" / "keys.parquet").exists()
