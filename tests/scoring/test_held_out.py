"""The held-out set: the same means, whoever embeds which part, and whoever dies."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from multimem_ray.errors import HeldOutError
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring import held_out_plan
from multimem_ray.scoring.held_out import HeldOutMeans
from multimem_ray.scoring.held_out_plan import is_summarized, load_plan, plan_held_out
from tests.scoring.bank_of import bank_of
from tests.small import small_run
from tests.trial import means as expected_of


def planned(folder: Path, *sets: str) -> tuple[Run, Shards]:
    run, shards = small_run(folder, "held_out.fraction=0.3", *sets)
    assert plan_held_out(run, shards, Progress())
    return run, shards


def test_the_plan_is_stored_and_followed(tmp_path: Path) -> None:
    run, shards = planned(tmp_path)
    plan = load_plan(run)
    assert plan == plan_held_out(run, shards, Progress())
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
    assert held_out_plan._choose(run, shards, Progress()) == alone


def test_parts_sum_up_to_the_means_of_all(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    bank = bank_of(run)
    for item in load_plan(run):
        assert not is_summarized(run)
        HeldOutMeans(run, bank).embed(item)
    found = HeldOutMeans(run, bank).statistics().means
    counts = [len(item.keys) for item in load_plan(run)]
    each = [expected_of(run, bank, item.shard) for item in load_plan(run)]
    # Text is there in every sample, so its mean is the mean of means weighted by counts.
    expected = sum(c * m for c, m in zip(counts, each, strict=True)) / sum(counts)
    torch.testing.assert_close(found[:, 2], expected[:, 2], atol=1e-6, rtol=0)
    facts = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert facts["samples"] == facts["keys_seen"] == sum(counts)
    assert facts["modalities"]["text"] == sum(counts)
    assert set(facts["models"]) == set(run.design.model_ids())
    assert not (tmp_path / "out" / "held_out" / "parts").exists()


def test_whoever_waits_too_long_does_it(tmp_path: Path) -> None:
    run, _ = planned(tmp_path)
    bank = bank_of(run)
    HeldOutMeans(run, bank).embed(load_plan(run)[0])
    alone = HeldOutMeans(run, bank, patience_s=0.0).statistics().means
    assert alone.shape == (2, 3, 16)
    assert plan_held_out(run, _, Progress()) == []


def test_a_modality_that_is_missing_in_h_is_named(tmp_path: Path) -> None:
    run, _ = planned(tmp_path, "held_out.max_samples=2", "design.seed=3")
    bank = bank_of(run)
    held = HeldOutMeans(run, bank, patience_s=0.0)
    bank.embed = lambda views: torch.full((2, 2, len(views.present), 3, 16), torch.nan)  # type: ignore[method-assign]
    with pytest.raises(HeldOutError, match="finite"):
        held.statistics()
