"""The whole way, as a user goes it: audit, choose, rewrite shards or mitigate, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import webdataset

from multimem_ray.audit import audit, mitigate
from multimem_ray.design.key_list import read_keys
from multimem_ray.results.select import Wanted, select_samples
from multimem_ray.results.table import ScoreTable
from multimem_ray.shards.reshard import reshard
from multimem_ray.storage import Storage
from tests.mitigation.small_audit import QUIET, small_audit
from tests.small import small_config, write_shards


def test_a_removal_list_rewrites_shards_that_open_and_train(tmp_path: Path) -> None:
    run = small_audit(tmp_path, "first")
    storage = Storage()
    made = select_samples(ScoreTable(run.output, storage), Wanted(percent=20.0))
    listed = read_keys(f"{made.folder}/remove", storage)
    written = reshard(str(tmp_path / "shards"), str(tmp_path / "rest"), listed)
    keys = [s["__key__"] for s in webdataset.WebDataset(written.shards, shardshuffle=False)]
    assert len(keys) == 60 - made.counts["removed"]
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "shards").symlink_to(tmp_path / "rest")
    again = small_audit(tmp_path / "second", "out")
    summary = json.loads((Path(again.output) / "summary.json").read_text())
    assert summary["coverage"]["samples"] == len(keys)
    scored = {
        key
        for batch in ScoreTable(again.output, storage).batches(["key"])
        for key in batch["key"].to_pylist()
    }
    assert scored <= set(keys)


@pytest.mark.slow
def test_a_mitigation_on_ray_is_the_one_in_this_process(tmp_path: Path, ray_session: Any) -> None:
    shards = write_shards(tmp_path / "shards", 60)
    plain = small_config(shards, tmp_path / "plain", "training.batch_size=8")
    audit(plain, QUIET)
    sets = [
        "training.batch_size=8",
        "training.epochs=4",
        "mitigation.kind=in_training",
        f"mitigation.references={tmp_path / 'plain'}",
        "mitigation.by=multimem",
        "mitigation.every=2",
        "mitigation.percent=25",
        "mitigation.views=2",
    ]
    config = small_config(shards, tmp_path / "mitigated", *sets)
    result = mitigate(config, QUIET)
    assert json.loads((tmp_path / "mitigated" / "mitigation.json").read_text()) == result
    assert "Mean MultiMem" in (tmp_path / "mitigated" / "mitigation.html").read_text()
    assert (tmp_path / "mitigated" / "report.html").exists()
    here = small_audit(tmp_path, "here", *sets[1:])
    again = {
        (row["key"], round(row["multimem"], 4))
        for out in (tmp_path / "mitigated", here.output)
        for batch in ScoreTable(str(out), Storage()).batches(["key", "multimem"])
        for row in batch.to_pylist()
    }
    assert len(again) == result["memory"]["samples"]
    stamp = (tmp_path / "mitigated" / "models" / "000" / "model.safetensors").stat().st_mtime_ns
    assert mitigate(config, QUIET)["memory"] == result["memory"]
    now = (tmp_path / "mitigated" / "models" / "000" / "model.safetensors").stat().st_mtime_ns
    assert now == stamp
