"""A unit's samples as all models have them: block by block, row by row beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multimem_ray.embeddings import layout
from multimem_ray.embeddings.files import read_blocks, vectors
from multimem_ray.embeddings.join import joined_bucket
from multimem_ray.embeddings.units import Unit, Units
from multimem_ray.errors import StorageError
from multimem_ray.run import Run
from multimem_ray.sample import Failure

BLOCK_BYTES = 16 << 20
"""Bytes of vectors, of all models together, that are looked at in one go."""

_BLOCK_ROWS = (64, 8192)


@dataclass(frozen=True)
class Rows:
    """Some samples of a unit in all models.

    Args:
        first: Position of the first in the unit.
        keys: Their keys.
        blocks: Per model, a record batch with these rows in this order.
        repeated: (B,) bool, whose key came before in the unit.
    """

    first: int
    keys: pa.Array
    blocks: Sequence[pa.RecordBatch]
    repeated: NDArray[np.bool_]

    def column(self, name: str) -> pa.Array | None:
        """A column of the first model that has it."""
        for block in self.blocks:
            at = block.schema.get_field_index(name)
            if at >= 0:
                return block.column(at)
        return None


@dataclass
class Vectors:
    """What one model has of some samples.

    Args:
        found: Per modality (B, V * d) float32.
        present: (B, n) bool.
        unfit: (B,) bool, where a list has another length.
    """

    found: list[NDArray[np.float32]]
    present: NDArray[np.bool_]
    unfit: NDArray[np.bool_]


def block_rows(run: Run, units: Units) -> int:
    """Rows to look at in one go."""
    row = 4 * sum(units.spec.widths) * len(run.modalities)
    least, most = _BLOCK_ROWS
    return min(most, max(least, BLOCK_BYTES // row))


def unit_rows(
    run: Run, units: Units, unit: Unit, *, vectors_too: bool = True
) -> Iterator[Rows | list[Failure]]:
    """The rows of a unit, and what of a bucket is not there in all models.

    Args:
        vectors_too: False: only what tells who the samples are.

    Raises:
        StorageError: A file cannot be read, or has changed since the run was opened.
    """
    wanted = [
        {n: c for n, c in columns.items() if vectors_too or n not in run.fields}
        for columns in units.spec.columns
    ]
    if unit.bucket >= 0:
        yield from _of_bucket(run, units, unit, wanted)
        return
    size = block_rows(run, units) if vectors_too else _BLOCK_ROWS[1]
    repeated = _repeated_keys(_keys(run, units, unit))
    streams = [
        read_blocks(run.storage, place, columns, size)
        for place, columns in zip(unit.places, wanted, strict=True)
    ]
    at = 0
    for blocks in zip(*streams, strict=True):
        keys = blocks[0].column(0)
        if not all(block.column(0).equals(keys) for block in blocks[1:]):
            raise StorageError(f"{unit.info.url}: its files have changed; run the audit again")
        end = at + len(keys)
        yield Rows(at, keys, blocks, repeated[at:end])
        at = end


def _keys(run: Run, units: Units, unit: Unit) -> pa.ChunkedArray:
    """All keys of a unit; they are few."""
    place, columns = unit.places[0], units.spec.columns[0]
    only = {layout.KEY: columns[layout.KEY]}
    blocks = read_blocks(run.storage, place, only, _BLOCK_ROWS[1])
    return pa.chunked_array([block.column(0) for block in blocks], pa.large_string())


def _repeated_keys(keys: pa.ChunkedArray) -> NDArray[np.bool_]:
    """(N,) bool: whether the same key came before."""
    repeated = np.zeros(len(keys), bool)
    if pc.count_distinct(keys).as_py() < len(keys):
        codes = keys.combine_chunks().dictionary_encode().indices.to_numpy()
        repeated[:] = True
        repeated[np.unique(codes, return_index=True)[1]] = False
    return repeated


def _of_bucket(
    run: Run, units: Units, unit: Unit, wanted: Sequence[dict[str, str]]
) -> Iterator[Rows | list[Failure]]:
    bucket = joined_bucket(run, units, unit)
    yield bucket.failures
    size = block_rows(run, units)
    nothing = np.zeros(size, bool)
    for first in range(0, len(bucket.keys), size):
        keys = bucket.keys.slice(first, size)
        blocks = [
            table.select(columns).take(rows.slice(first, size)).combine_chunks().to_batches()[0]
            for table, rows, columns in (
                (table, rows, [name for name in columns if name in table.schema.names])
                for table, rows, columns in zip(bucket.tables, bucket.rows, wanted, strict=True)
            )
        ]
        yield Rows(first, keys, blocks, nothing[: len(keys)])


def vectors_of(block: pa.RecordBatch, names: Sequence[str], width: int) -> Vectors:
    """A model's vectors from its record batch, in the order of the names."""
    size = block.num_rows
    present, unfit = np.zeros((size, len(names)), bool), np.zeros(size, bool)
    found = []
    for place, name in enumerate(names):
        column = block.column(block.schema.get_field_index(name))
        values, fits = vectors(column, width)
        found.append(values)
        present[:, place] = fits
        if not fits.all():
            unfit |= ~fits & column.is_valid().to_numpy(zero_copy_only=False)
    return Vectors(found, present, unfit)
