"""Processes that die under a real pool of actors: nothing lost, nothing twice, and an end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from multimem_ray.config import Config
from multimem_ray.distributed.on_ray import RayExecutor
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.scoring.pipeline import score
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import open_run, resolve
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import finish_models
from tests.small import members

SAMPLES = 30


def deadly_config(
    folder: Path, killers: set[int], word: bytes = b"kill", **score_resources: Any
) -> Config:
    with ShardWriter(str(folder / "shards"), max_samples=10) as writer:
        for number in range(SAMPLES):
            deadly = word if number in killers else f"good {number}".encode()
            writer.write(f"s{number:03d}", {"txt": members(number)["txt"], "deadly": deadly})
    return resolve(
        {
            "output": str(folder / "out"),
            "data": {
                "shards": str(folder / "shards" / "*.tar"),
                "fields": {"text": "txt", "deadly": "deadly"},
                "plugins": ["tests.scoring.deadly"],
            },
            "held_out": {"fraction": 0.2},
            "design": {"models": 2},
            "model": {"dim": 8},
            "scoring": {"views": 1, "batch_size": 4},
            "resources": {"score": score_resources},
        }
    )


def scored_keys(run: Run, shards: Shards) -> tuple[list[str], list[dict[str, Any]]]:
    keys: list[str] = []
    errors: list[dict[str, Any]] = []
    log = commit_log(run)
    for shard in shards.scored:
        for kind, found in (("scores", keys), ("errors", errors)):
            path = Path(log.data_url(kind, shard.url))
            if path.exists():
                rows = pq.read_table(path, partitioning=None).to_pylist()
                found.extend(row["key"] if kind == "scores" else row for row in rows)
    return keys, errors


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("layout", ["fused", "split"])
def test_samples_that_kill_are_recorded_and_the_rest_is_scored(
    tmp_path: Path, ray_session: object, layout: str
) -> None:
    actors = {"fused": 2, "split": 1}[layout]
    run, shards = open_run(deadly_config(tmp_path, {3, 17}, actors=actors, layout=layout))
    groups = [f"s{number:03d}" for number in range(SAMPLES)]
    held_out = {
        key
        for key, is_held in zip(groups, run.held_out_rule.is_held_out(groups, ""), strict=True)
        if is_held
    }
    assert held_out
    assert not held_out & {"s003", "s017"}, "choose other killers"
    finish_models(run)
    totals = score(run, shards, Progress(Console(quiet=True)), ShardSource(run), RayExecutor())
    keys, errors = scored_keys(run, shards)
    assert sorted(keys) == sorted(set(groups) - held_out - {"s003", "s017"})
    assert {(e["key"], e["stage"], e["error"]) for e in errors} == {
        ("s003", "decode", "killed_worker"),
        ("s017", "decode", "killed_worker"),
    }
    assert (totals.rows, totals.held_out, totals.errors) == (len(keys), len(held_out), 2)
    assert not (tmp_path / "out" / "parts").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("word", "stage"), [(b"kill", "decode"), (b"later", "score")])
def test_a_held_out_sample_that_kills_is_left_out_of_the_means(
    tmp_path: Path, ray_session: object, word: bytes, stage: str
) -> None:
    config = deadly_config(tmp_path / "a", set(), actors=1)
    run, _ = open_run(config)
    groups = [f"s{number:03d}" for number in range(SAMPLES)]
    killer = int(run.held_out_rule.is_held_out(groups, "").argmax())
    run, shards = open_run(deadly_config(tmp_path / "b", {killer}, word, actors=1))
    finish_models(run)
    totals = score(run, shards, Progress(Console(quiet=True)), ShardSource(run), RayExecutor())
    facts = json.loads(run.storage.read_bytes(run.path("held_out", "held_out.json")))
    assert facts["samples"] == totals.held_out - 1
    assert [(one["key"], one["stage"]) for one in facts["killed"]] == [(groups[killer], stage)]
    assert facts["undecodable"] == 0
    assert totals.rows + totals.held_out == SAMPLES
