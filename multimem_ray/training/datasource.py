"""Decoded training samples as a Ray Data source: for shards that the cluster decodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.training.decode import WHOLE, RankShard, decoded_tables, schema


class TrainingSource(Datasource):
    """One read task per shard; blocks are tables of :func:`schema`.

    Args:
        run: The run.
        shards: (number in the run, shard), in the order in which they are wanted.
        part: Which of their samples are decoded.
    """

    def __init__(
        self, run: Run, shards: Sequence[tuple[int, FileInfo]], part: RankShard = WHOLE
    ) -> None:
        self._run = run
        self._part = part
        self._shards = list(shards)

    def get_name(self) -> str:
        return "TrainingSource"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        columns = schema(self._run.modalities)
        return [
            ReadTask(
                partial(decoded_tables, self._run, shard, number, self._part),
                BlockMetadata(
                    num_rows=None, size_bytes=None, exec_stats=None, input_files=(shard.url,)
                ),
                schema=columns,
            )
            for number, shard in self._shards
        ]
