"""Where what is scored comes from: chosen once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from multimem_ray.embeddings.source import StoredSource, source_of
from multimem_ray.errors import ModelError
from multimem_ray.sample import Sample
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.scoring.source import Actor
from multimem_ray.shards.reader import read_shard
from tests.embeddings.kept import config_of, keys_of, score, table, vectors, write
from tests.small import small_run


def test_shards_tell_their_held_out_samples(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.balance=json.label")
    source = pickle.loads(pickle.dumps(source_of(run)))
    assert isinstance(source, ShardSource)
    keys, labels = source.held_out_of(shards.scored[0].url)
    items = read_shard(shards.scored[0].url, run.storage)
    held_out = {
        item.key: item.field("json.label")
        for item in items
        if isinstance(item, Sample) and run.held_out_rule.is_held_out([item.key], item.shard)[0]
    }
    assert dict(zip(keys, labels, strict=True)) == held_out
    assert keys


def test_stored_embeddings_tell_theirs(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{seed}.parquet", table(keys_of(50), vectors(50, 8, seed)))
        for seed in (0, 1)
    ]
    run, shards = score(config_of(tmp_path / "out", paths))
    source = source_of(run)
    assert isinstance(source, StoredSource)
    keys, _ = source.held_out_of(shards.scored[0].url)
    flags = run.held_out_rule.is_held_out(keys_of(50), "")
    assert keys == [key for key, held in zip(keys_of(50), flags, strict=True) if held]


def test_an_actor_makes_what_works_where_it_is() -> None:
    made: list[str] = []

    def make() -> Any:
        made.append("here")
        return lambda row: {"answer": row["question"]}

    actor = Actor(make)
    assert [actor({"question": n}) for n in (1, 2)] == [{"answer": 1}, {"answer": 2}]
    assert made == ["here"]


def test_an_actor_that_cannot_be_made_says_why_at_its_first_row() -> None:
    def refuse() -> Any:
        raise ModelError("m0: weights of another model")

    actor = Actor(refuse)
    with pytest.raises(ModelError, match="m0: weights of another model"):
        actor({"kind": "shard"})
