"""What is left to be scored, and that scoring leaves nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from multimem_ray.distributed.executor import LOCAL
from multimem_ray.errors import ModelError
from multimem_ray.progress import Progress
from multimem_ray.scoring.pipeline import Totals, pending, score
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.setup import open_run
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import finish_models
from tests.small import small_config, write_shards

QUIET = Progress(Console(file=io.StringIO()))


def test_what_is_missing_is_scored_and_what_failed_if_asked(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", 30, 3)
    run, shards = open_run(small_config(folder, tmp_path / "out"))
    assert pending(run, shards).shards == 3
    with pytest.raises(ModelError, match="000, 001 are not trained yet"):
        score(run, shards, QUIET, ShardSource(run), LOCAL)
    finish_models(run)
    totals = score(run, shards, QUIET, ShardSource(run), LOCAL)
    assert (totals.shards, totals.fresh, totals.errors) == (3, 3, 0)
    assert totals.rows + totals.held_out == 30
    assert score(run, shards, QUIET, ShardSource(run), LOCAL) == Totals(
        3, totals.rows, totals.held_out, 0, 0
    )
    run.storage.remove(commit_log(run).load()[1].url)
    left = pending(run, shards)
    assert (len(left.done), left.shards, left.failed) == (2, 1, [])
    assert score(run, shards, QUIET, ShardSource(run), LOCAL, left).fresh == 1


def test_a_missing_shard_is_written_down(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", 20, 2)
    here, gone = sorted(map(str, folder.glob("*.tar"))), str(folder / "gone.tar")
    config = small_config(folder, tmp_path / "out", f"data.shards={[*here, gone]}")
    run, shards = open_run(config)
    finish_models(run)
    score(run, shards, QUIET, ShardSource(run), LOCAL)
    assert len(list(Path(run.output, "errors").rglob("*.parquet"))) == 1
