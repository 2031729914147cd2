"""The scoring actor of stored embeddings: a unit once, and the held-out set from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multimem_ray.embeddings import worker
from multimem_ray.embeddings.align import UnitReader
from multimem_ray.embeddings.units import load_units
from multimem_ray.embeddings.worker import StoredHeldOut, UnitScorer
from multimem_ray.scoring.held_out_plan import Chosen
from tests.embeddings.kept import N, config_of, keys_of, row, score, written


def test_a_worker_that_died_knows_what_it_had_committed(
    tmp_path: Path, found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = score(config_of(tmp_path / "out", written(tmp_path, found)))
    (shard,) = shards.scored
    work = {**row(shard.url, "shard"), "size": shard.size, "version": shard.version}
    monkeypatch.setattr(worker, "score_unit", None)
    receipt = UnitScorer(run, restarted=True)(work)
    assert receipt["rows"] + receipt["held_out"] == N


def test_held_out_vectors_are_normalised_and_padded(
    tmp_path: Path, found: list[dict[str, Any]]
) -> None:
    run, shards = score(config_of(tmp_path / "out", written(tmp_path, found)))
    held_out = StoredHeldOut(run, UnitReader(run, load_units(run)))
    chosen = Chosen(shards.scored[0].url, tuple(keys_of(N)[:3]))
    rows = held_out.part(chosen, careful=False).rows
    assert rows.mean.shape == (2, 3, 3, 40)
    torch.testing.assert_close(rows.mean.norm(dim=-1), torch.ones(2, 3, 3))
    assert not rows.mean[0, :, :, 24:].any()
