"""Stored embeddings in the place of shards and models, and the choice between the two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from multimem_ray.distributed.executor import Executor, Row
from multimem_ray.embeddings.align import Rows, UnitReader
from multimem_ray.embeddings.join import spill_all
from multimem_ray.embeddings.units import load_units
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from multimem_ray.scoring.shard_source import ShardSource
from multimem_ray.scoring.source import Source


def source_of(run: Run) -> Source:
    """Where what a run scores comes from."""
    return ShardSource(run) if run.config.data.embeddings is None else StoredSource(run)


@dataclass(frozen=True)
class StoredSource:
    """Stored embeddings, unit by unit."""

    run: Run
    splits: ClassVar[bool] = False

    def prepare(self, progress: Progress, executor: Executor) -> None:
        """Files that do not stand alike are joined on disk."""
        spill_all(self.run, load_units(self.run), progress, executor)

    def clear(self) -> None:
        """The join goes."""
        run = self.run
        run.storage.discard(run.path(load_units(run).spec.join), recursive=True)

    def held_out_of(self, url: str) -> tuple[list[str], list[str]]:
        reader = UnitReader(self.run, load_units(self.run))
        keys, labels = list[str](), list[str]()
        for rows in reader.rows(reader.units.of(url), vectors_too=False):
            if not isinstance(rows, Rows):
                continue
            flags = reader.held_out(rows, reader.groups(rows), url) & ~rows.repeated
            at = np.flatnonzero(flags)
            keys += rows.keys.take(pa.array(at)).to_pylist()
            every = reader.labels(rows)
            labels += [str(every[place]) for place in at.tolist()]
        return keys, labels

    def scorer(self) -> Callable[[Row], Row]:
        from multimem_ray.embeddings.worker import UnitScorer

        return UnitScorer(self.run)
