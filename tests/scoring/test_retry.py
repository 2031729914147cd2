"""What failed in a committed shard is tried again, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import SampleError
from multimem_ray.run import Run, Shards
from multimem_ray.scoring import chunks, shard
from multimem_ray.scoring.actor import ShardScorer
from multimem_ray.store.commits import commit_log
from tests.scoring.bank_of import finish_models, row_of, some_statistics
from tests.small import small_run, write_shards


def test_a_retry_goes_to_what_failed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "PART_POSITIONS", 6)
    monkeypatch.setattr(shard, "PART_POSITIONS", 6)
    write_shards(tmp_path / "shards", 20, 1)
    run, shards = small_run(tmp_path, "held_out.fraction=0.1")
    finish_models(run)
    monkeypatch.setattr(
        "multimem_ray.scoring.held_out.HeldOut.statistics", lambda self: some_statistics(run)
    )
    scorer = ShardScorer(run, restarted=False)
    good = scorer(row_of(run, shards))
    before = commit_log(run).split(shards.scored)[0][0]
    clean = rows_of(run, shards)
    identity = chunks.ChunkReader.identity
    bad = {clean[3]["index"], clean[4]["index"], clean[-1]["index"]}

    def failing(self: Any, sample: Any) -> Any:
        if sample.index in bad:
            raise SampleError("today", "undecodable", "decode")
        return identity(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(chunks.ChunkReader, "identity", failing)
        scorer(row_of(run, shards, stale=f'["{before.url}"]'))
    failed = commit_log(run).split(shards.scored)[0][0]
    assert (failed.rows, failed.errors) == (good["rows"] - 3, 3)

    seen: list[int] = []

    def noted(self: Any, sample: Any) -> Any:
        seen.append(sample.index)
        return identity(self, sample)

    monkeypatch.setattr(chunks.ChunkReader, "identity", noted)
    again = scorer(row_of(run, shards, stale=f'["{failed.url}"]', retry=failed.url))
    assert set(seen) == bad
    assert (again["rows"], again["errors"]) == (good["rows"], 0)
    healed = rows_of(run, shards)
    assert [row["key"] for row in healed] == [row["key"] for row in clean]
    for a, b in zip(healed, clean, strict=True):
        assert a["cmc"] == pytest.approx(b["cmc"], abs=1e-5)
    (kept,) = commit_log(run).load()
    assert kept.errors == 0
    assert not list((tmp_path / "out" / "parts").rglob("*.arrow"))


def rows_of(run: Run, shards: Shards) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    url = commit_log(run).data_url("scores", shards.scored[0].url)
    rows: list[dict[str, Any]] = pq.read_table(url, partitioning=None).to_pylist()
    assert rows == sorted(rows, key=lambda row: -row["multimem"])
    return sorted(rows, key=lambda row: row["index"])
