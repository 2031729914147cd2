"""Who decodes what, when several ranks train a bank: each sample on one of them.

A rank decodes every world-th sample of a shard and reads past the others, of which it knows the
key: enough to follow the same order and to cut the same batches. Its slice of a batch is what it
has decoded of it. Whether a sample can be decoded at all only its own rank knows, so ranks tell
each other, shard by shard, which of theirs could: what could not be is in nobody's batch, as in a
training on one rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from torch import distributed

from multimem_ray.models.collectives import rank, world_size
from multimem_ray.training.part import RankShard


class Split:
    """Agreement among the ranks on what can be trained on; all must ask, in the same order.

    It has a process group of its own, since samples are prepared beside the steps.
    """

    def __init__(self) -> None:
        self.part = RankShard(rank(), world_size())
        self._group: Any = distributed.new_group(backend="gloo") if world_size() > 1 else None

    def usable(self, tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
        """Tables of a shard, without the samples that their rank could not decode."""
        if self._group is None:
            return tables
        tables = list(tables)
        indices = [table["index"].to_numpy() for table in tables]
        own = np.concatenate([np.empty(0, np.int64), *indices])
        own = own[own % self.part.world == self.part.rank]
        told: list[Any] = [None] * self.part.world
        distributed.all_gather_object(told, own, group=self._group)
        known = np.concatenate(told)
        return [
            table.filter(pa.array(np.isin(places, known)))
            for table, places in zip(tables, indices, strict=True)
        ]
