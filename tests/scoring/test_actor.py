"""The actor: a row of work is done once, also by one that was started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from multimem_ray.errors import SampleError
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.scoring.chunks import ChunkReader
from multimem_ray.scoring.poison import CrashLog
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import finish_models, row_of, some_statistics
from tests.small import small_run


def test_a_restarted_worker_knows_what_it_had_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path)
    finish_models(run)
    monkeypatch.setattr(
        "multimem_ray.scoring.held_out.HeldOut.statistics", lambda self: some_statistics(run)
    )
    first = ShardScorer(run, restarted=True)(row_of(run, shards))
    (committed,) = commit_log(run).load()

    def again(self: Any, shard: Any, row: Any) -> Any:
        raise AssertionError("scored twice")

    monkeypatch.setattr(ShardScorer, "scored", again)
    assert ShardScorer(run, restarted=True)(row_of(run, shards)) == first
    retry = row_of(run, shards, retry=committed.url, stale=f'["{committed.url}"]')
    with pytest.raises(AssertionError, match="scored twice"):
        ShardScorer(run, restarted=True)(retry)


def test_a_retry_that_killed_is_given_up_like_any_other_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.000001")
    finish_models(run)
    monkeypatch.setattr(
        "multimem_ray.scoring.held_out.HeldOut.statistics", lambda self: some_statistics(run)
    )
    identity = ChunkReader.identity

    def failing(self: Any, sample: Any) -> Any:
        if sample.index == 3:
            raise SampleError("today", "undecodable", "decode")
        return identity(self, sample)

    monkeypatch.setattr(ChunkReader, "identity", failing)
    assert ShardScorer(run, restarted=False)(row_of(run, shards))["errors"] == 1
    (failed,) = commit_log(run).load()
    # Two processes of the retry died on the sample, the third one comes.
    folder = commit_log(run).parts(shards.scored[0])
    CrashLog(deaths=2, stage="decode", first=3, end=4, repeated=1).save(folder)
    retry = row_of(run, shards, retry=failed.url, stale=f'["{failed.url}"]')
    receipt = ShardScorer(run, restarted=True)(retry)
    assert (receipt["rows"], receipt["errors"]) == (19, 1)
    (path,) = Path(run.output, "errors").rglob("*.parquet")
    (error,) = pq.read_table(path, partitioning=None).to_pylist()
    assert (error["index"], error["error"], error["stage"]) == (3, "killed_worker", "decode")
