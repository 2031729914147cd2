from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from multimem_ray.sample import Failure, Sample
from multimem_ray.shards import datasource
from multimem_ray.shards.datasource import SCHEMA, ShardDatasource, from_table, to_tables
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import ShardWriter
from multimem_ray.storage import Storage
from tests.shards.tars import PLAIN, archive, grouped, parted


def shards(folder: Path, samples: int) -> Any:
    with ShardWriter(str(folder), max_samples=300) as writer:
        for i in range(samples):
            members = {"txt": str(i).encode()} | ({"jpg": b"j" * i} if i % 3 else {})
            writer.write(f"k{i:04}", members)
    (folder / "cut.tar").write_bytes(archive(PLAIN)[:2600])
    (folder / "garbage.tar").write_bytes(b"x" * 1000)
    return find_shards(str(folder), Storage()).shards


def rank(item: Sample | Failure) -> tuple[str, int, str]:
    return item.shard, -1 if item.index is None else item.index, item.key or ""


def test_through_ray_all_samples_and_failures_arrive_once(tmp_path: Path, ray_session: Any) -> None:
    found = shards(tmp_path, 700)
    source = ShardDatasource(found, Storage())
    dataset = ray_session.data.read_datasource(source, override_num_blocks=len(found))
    assert dataset.schema().base_schema.equals(SCHEMA)
    items = [
        item
        for batch in dataset.iter_batches(batch_size=100, batch_format="pyarrow")
        for item in from_table(batch)
    ]
    expected = [item for shard in found for item in read_shard(shard.url, Storage())]
    assert sorted(items, key=rank) == sorted(expected, key=rank)
    samples, failures = parted(items)
    assert len(samples) == 700 + 1
    assert {Path(f.shard).name for f in failures} == {"cut.tar", "garbage.tar"}


def test_every_shard_is_one_task_with_the_schema(tmp_path: Path) -> None:
    found = shards(tmp_path, 700)
    source = pickle.loads(pickle.dumps(ShardDatasource(found, Storage(), extensions=["txt"])))
    tasks = source.get_read_tasks(2)
    assert [task.metadata.input_files for task in tasks] == [(info.url,) for info in found]
    assert source.estimate_inmemory_data_size() == sum(info.size for info in found)
    blocks = [table for task in tasks for table in task()]
    assert all(table.schema.equals(SCHEMA) and table.num_rows <= 256 for table in blocks)
    items = [item for table in blocks for item in from_table(table)]
    samples, _ = parted(items)
    assert {e for s in samples for e in s.members} == {"txt"}
    assert len(samples) == 700 + 1


def test_blocks_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasource, "BLOCK_BYTES", 1000)
    samples = [Sample(str(i), "x", i, {"bin": b"x" * 400}) for i in range(10)]
    tables = list(to_tables(iter(samples)))
    assert [table.num_rows for table in tables] == [3, 3, 3, 1]
    assert list(from_table(pa.concat_tables(tables))) == samples


def test_nothing_still_has_the_schema() -> None:
    (table,) = to_tables(iter(()))
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA)


def test_a_sample_without_the_wanted_members_is_still_a_row() -> None:
    sample = Sample("a", "x", 0, grouped(PLAIN)["a"])
    (table,) = to_tables([sample], frozenset(["mp4"]))
    assert list(from_table(table)) == [Sample("a", "x", 0, {})]
