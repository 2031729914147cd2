"""What reaches training: members only, decided before decoding; errors are left to scoring."""

from __future__ import annotations

from pathlib import Path

from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.training.decode import decoded_tables, from_table, training_samples
from tests.small import small_run


def test_held_out_samples_are_never_trained_on(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    keys = {
        item.key
        for shard in shards.scored
        for item in read_shard(shard.url, run.storage)
        if isinstance(item, Sample)
    }
    trained = {s.key for shard in shards.scored for s in training_samples(run, shard)}
    held = {k for k in keys if run.held_out_rule.is_held_out([k], shards.scored[0].url)[0]}
    assert held
    assert trained == keys - held


def test_groups_stay_together(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "design.group=json.source", "held_out.fraction=0.4")
    groups: dict[str, set[str]] = {}
    for shard in shards.scored:
        for sample in training_samples(run, shard):
            groups.setdefault(sample.group, set()).add(sample.key)
    assert groups
    assert all(group.startswith("tape-") for group in groups)
    assert {len(keys) for keys in groups.values()} == {2}


def test_no_member_no_decoding(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "held_out.fraction=0.999999")

    def refuse(_: Sample) -> None:
        raise AssertionError("decoded a sample that nobody trains on")

    run.decoder.decode = refuse  # type: ignore[method-assign, assignment]
    assert not list(training_samples(run, shards.scored[0]))


def test_tables_hold_the_samples_in_order(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path)
    shard = shards.scored[1]
    tables = list(decoded_tables(run, shard, 1))
    keys = [s.key for table in tables for s in from_table(table, run.modalities)]
    assert keys == [s.key for s in training_samples(run, shard)]
    assert {n for table in tables for n in table["shard"].to_pylist()} == {1}
