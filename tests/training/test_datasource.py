"""The Ray Data source of decoded samples: a task for each shard, tables as decoded here."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from multimem_ray.training.datasource import TrainingSource
from multimem_ray.training.decode import RankShard, decoded_tables, schema
from tests.small import small_run, write_shards


def test_a_task_reads_one_shard_with_its_number(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 12, 3)
    run, shards = small_run(tmp_path)
    named = [(2, shards.scored[2]), (0, shards.scored[0])]
    tasks = TrainingSource(run, named).get_read_tasks(99)
    assert [task.metadata.input_files for task in tasks] == [(s.url,) for _, s in named]
    for task, (number, shard) in zip(tasks, named, strict=True):
        assert task.schema == schema(run.modalities)
        table = pa.concat_tables(task())
        assert table.equals(pa.concat_tables(decoded_tables(run, shard, number)))
        assert set(table["shard"].to_pylist()) == {number}


def test_a_part_decodes_only_its_own_samples(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 12, 1)
    run, shards = small_run(tmp_path)
    (task,) = TrainingSource(run, [(0, shards.scored[0])], RankShard(1, 2)).get_read_tasks(1)
    rows = pa.concat_tables(task()).select(["index", "text.dtype"]).to_pylist()
    assert {row["index"] % 2 for row in rows} == {0, 1}
    assert all((row["text.dtype"] is not None) == (row["index"] % 2 == 1) for row in rows)
