"""Shards as the source of what is scored: which of their samples are held out."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

from multimem_ray.sample import Sample
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.shards.writer import ShardWriter
from tests.small import members, small_run


def test_held_out_samples_are_those_of_the_rule(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    for shard in shards.scored:
        samples = [item for item in run.read(shard.url) if isinstance(item, Sample)]
        held_out = run.held_out_rule.is_held_out([run.group(s) for s in samples], shard.url)
        expected = [s.key for s, out in zip(samples, held_out, strict=True) if out]
        keys, labels = ShardSource(run).held_out_of(shard.url)
        assert keys == expected
        assert labels == [""] * len(keys)
        assert expected


def test_labels_come_with_them_where_they_are_balanced(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.balance=json.label")
    colours = ["blue", "green", "red"]
    for shard in shards.scored:
        keys, labels = ShardSource(run).held_out_of(shard.url)
        assert labels == [colours[int(key[1:]) % 3] for key in keys]
        assert keys


def test_a_sample_whose_label_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.balance=json.label")
    keys, _ = ShardSource(run).held_out_of(shards.scored[0].url)
    with ShardWriter(str(tmp_path / "damaged"), max_samples=20) as writer:
        for number in range(20):
            broken = {"json": b"{"} if f"s{number:04d}" == keys[0] else {}
            writer.write(f"s{number:04d}", members(number) | broken)
    shutil.copy(min((tmp_path / "damaged").glob("*.tar")), shards.scored[0].url)
    assert ShardSource(run).held_out_of(shards.scored[0].url)[0] == keys[1:]


def test_it_goes_to_other_processes(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    source = ShardSource(run)
    url = shards.scored[0].url
    assert pickle.loads(pickle.dumps(source)).held_out_of(url) == source.held_out_of(url)
