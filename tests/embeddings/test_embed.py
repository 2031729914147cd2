"""Every shard that is not embedded yet, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multimem_ray.distributed.executor import LocalExecutor
from multimem_ray.embeddings.embed import embed
from multimem_ray.errors import ModelError
from multimem_ray.scoring.pipeline import Totals
from multimem_ray.shards.writer import ShardWriter
from tests.small import QUIET, members, small_run, trained


def test_only_what_is_left_is_embedded(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path / "shards"), max_samples=8) as writer:
        for number in range(24):
            broken = {"png": b"\x89PNG\r\n\x1a\n broken"} if number == 3 else {}
            writer.write(f"s{number:04d}", members(number) | broken)
    run, shards = small_run(tmp_path, "training.epochs=1", "scoring.views=1")
    executor = LocalExecutor()

    def embedded(*, retry_errors: bool = False) -> Totals:
        with executor.session():
            return embed(run, shards, QUIET, executor, retry_errors=retry_errors)

    with pytest.raises(ModelError, match="not trained"):
        embedded()
    trained(run)
    # Held-out samples are embedded as all others.
    assert embedded() == Totals(shards=3, rows=23, held_out=0, errors=1, fresh=3)
    manifest = json.loads(min(Path(run.output, "embeddings").glob("*.json")).read_text())
    assert (manifest["models"], manifest["shards"]) == (["000", "001"], 3)
    assert embedded().fresh == 0
    assert embedded(retry_errors=True).fresh == 1
    min(Path(run.output, "embeddings", "commits").iterdir()).unlink()
    assert embedded() == Totals(shards=3, rows=23, held_out=0, errors=1, fresh=1)
