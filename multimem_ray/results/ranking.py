"""What samples can be ranked by: a score column, or what follows from several.

a column   high is suspicious, but low for the consistencies cmc_in and cmc_out
clipmem    the sum of CLIPMem over the pairs of modalities that a sample has
random     a keyed hash of shard and key, for samples that have a MultiMem: the control of
           every other ranking
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from multimem_ray.design.hashing import uniform
from multimem_ray.errors import ConfigError
from multimem_ray.results.accumulate import Floats
from multimem_ray.results.arrays import floats
from multimem_ray.results.reader import ScoreTable
from multimem_ray.results.top import largest_first, require_number
from multimem_ray.store.schema import CLIPMEM


@dataclass(frozen=True)
class Ranking:
    """An order of samples.

    Attributes:
        name: What the user called it.
        largest: Whether the most suspicious have the largest values.
        columns: Score columns that it is made of, beside shard and key.
        values: Values (N,) of a batch with these columns; NaN where undefined.
    """

    name: str
    largest: bool
    columns: tuple[str, ...]
    values: Callable[[pa.RecordBatch], Floats]

    @property
    def column(self) -> str:
        """The column that it is; empty if it follows from others."""
        return self.name if self.columns == (self.name,) else ""


def ranking(
    table: ScoreTable, by: str = "multimem", *, largest: bool | None = None, seed: int = 0
) -> Ranking:
    """The ranking of that name.

    Args:
        table: The scores of a run.
        by: A score column, ``clipmem`` or ``random``.
        largest: Which end is suspicious; by default high, but low for ``cmc_in`` and ``cmc_out``.
        seed: Of ``random``.

    Raises:
        ConfigError: There is no such column, or it holds no numbers.
    """
    if by == "random":
        return Ranking(by, True, ("multimem",), lambda batch: _random(batch, seed))
    if by == "clipmem":
        pairs = tuple(c for c in table.columns if c.startswith(CLIPMEM))
        if table.columns and not pairs:
            raise ConfigError(f"{table.output}: the scores have no column {CLIPMEM}…")
        return Ranking(by, largest is not False, pairs, lambda batch: _sum(batch, pairs))
    require_number(table, by)
    direction = largest_first(by) if largest is None else largest
    return Ranking(by, direction, (by,), lambda batch: floats(batch[by]))


def _random(batch: pa.RecordBatch, seed: int) -> Floats:
    shards, keys = batch["shard"].to_pylist(), batch["key"].to_pylist()
    names = [f"{shard}\0{key}" for shard, key in zip(shards, keys, strict=True)]
    return np.where(np.isnan(floats(batch["multimem"])), np.nan, uniform(seed, "select", names))


def _sum(batch: pa.RecordBatch, columns: tuple[str, ...]) -> Floats:
    matrix = np.stack([floats(batch[c]) for c in columns], axis=1)
    undefined = np.isnan(matrix).all(axis=1)
    return np.where(undefined, np.nan, np.nansum(matrix, axis=1))
