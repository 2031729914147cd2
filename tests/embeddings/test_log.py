"""The files of embeddings: one for each shard and model, and what the models trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from multimem_ray.embeddings.actor import Embeddings
from multimem_ray.embeddings.log import EmbeddingLog, write_manifest, write_membership
from multimem_ray.scoring.shard import score_shard
from tests.scoring.bank_of import bank_of
from tests.small import small_run


def test_a_shard_becomes_a_file_of_each_model(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    embedded = score_shard(Embeddings(run, bank_of(run)), shards.scored[0])
    EmbeddingLog(run).commit(shards.scored[0], embedded.receipt, embedded.scores, embedded.errors)
    folder = Path(run.output, "embeddings")
    files = sorted(folder.rglob("*.parquet"))
    assert [path.relative_to(folder).parts[0] for path in files] == ["model=000", "model=001"]
    table = pq.read_table(files[0], partitioning=None)
    assert (table.num_rows, embedded.receipt.held_out) == (20, 0), "held-out samples too"
    assert set(table.column_names) >= {"key", "held_out", *run.modalities}


def test_the_manifest_and_the_membership(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    write_membership(run)
    manifest = json.loads(Path(write_manifest(run, 2)).read_text())
    assert (manifest["models"], manifest["shards"]) == (["000", "001"], 2)
    said = json.loads(Path(run.output, "embeddings", "model=001", "membership.json").read_text())
    assert (said["model"], said["number"]) == ("001", 1)
