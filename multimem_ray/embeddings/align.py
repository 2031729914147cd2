"""A unit's samples as all models have them: block by block, row by row beside each other.

Files that stand alike are read side by side. Of files that do not, the keys were hashed into
buckets on disk (:mod:`multimem_ray.embeddings.join`), which are read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multimem_ray.design.key_list import KeyList, read_key_file
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

    def take(self, at: NDArray[np.int64]) -> Rows:
        """Some of them."""
        taken = pa.array(at)
        blocks = [block.take(taken) for block in self.blocks]
        return Rows(self.first, self.keys.take(taken), blocks, self.repeated[at])


@dataclass
class Vectors:
    """What one model has of some samples.

    Args:
        values: Per modality (B, V * d) float32.
        present: (B, n) bool.
        unfit: (B,) bool, where a list has another length.
    """

    values: list[NDArray[np.float32]]
    present: NDArray[np.bool_]
    unfit: NDArray[np.bool_]


class UnitReader:
    """Reads the units of a run on stored embeddings, and tells what is known of their samples.

    Args:
        run: The run.
        units: Its units.
    """

    def __init__(self, run: Run, units: Units) -> None:
        self.run, self.units = run, units

    def rows(self, unit: Unit, *, vectors_too: bool = True) -> Iterator[Rows | list[Failure]]:
        """The rows of a unit, and what of a bucket is not there in all models.

        Args:
            vectors_too: False: only what tells who the samples are.

        Raises:
            StorageError: A file cannot be read, or has changed since the run was opened.
        """
        columns = [
            {n: c for n, c in of_model.items() if vectors_too or n not in self.run.fields}
            for of_model in self.units.spec.columns
        ]
        least, most = _BLOCK_ROWS
        row_bytes = 4 * sum(self.units.spec.widths) * len(self.run.modalities)
        size = min(most, max(least, BLOCK_BYTES // row_bytes)) if vectors_too else most
        read = self._side_by_side if unit.bucket < 0 else self._of_bucket
        yield from read(unit, columns, size)

    def _side_by_side(
        self, unit: Unit, columns: Sequence[Mapping[str, str]], size: int
    ) -> Iterator[Rows]:
        repeated = self._repeated(unit)
        streams = [
            read_blocks(self.run.storage, place, named, size)
            for place, named in zip(unit.places, columns, strict=True)
        ]
        at = 0
        for blocks in zip(*streams, strict=True):
            keys = blocks[0].column(0)
            if not all(block.column(0).equals(keys) for block in blocks[1:]):
                raise StorageError(f"{unit.info.url}: its files have changed; run the audit again")
            end = at + len(keys)
            yield Rows(at, keys, blocks, repeated[at:end])
            at = end

    def _repeated(self, unit: Unit) -> NDArray[np.bool_]:
        """(N,) bool: whether the same key came before in the unit. All its keys are few."""
        only = {layout.KEY: self.units.spec.columns[0][layout.KEY]}
        blocks = read_blocks(self.run.storage, unit.places[0], only, _BLOCK_ROWS[1])
        keys = pa.chunked_array([block.column(0) for block in blocks], pa.large_string())
        repeated = np.zeros(len(keys), bool)
        if pc.count_distinct(keys).as_py() < len(keys):
            codes = keys.combine_chunks().dictionary_encode().indices.to_numpy()
            repeated[:] = True
            repeated[np.unique(codes, return_index=True)[1]] = False
        return repeated

    def _of_bucket(
        self, unit: Unit, columns: Sequence[Mapping[str, str]], size: int
    ) -> Iterator[Rows | list[Failure]]:
        bucket = joined_bucket(self.run, self.units, unit)
        yield bucket.failures
        tables = [
            table.select([name for name in named if name in table.schema.names])
            for table, named in zip(bucket.tables, columns, strict=True)
        ]
        for first in range(0, len(bucket.keys), size):
            keys = bucket.keys.slice(first, size)
            blocks = [
                table.take(rows.slice(first, size)).combine_chunks().to_batches()[0]
                for table, rows in zip(tables, bucket.rows, strict=True)
            ]
            yield Rows(first, keys, blocks, np.zeros(len(keys), bool))

    @cached_property
    def _listed(self) -> KeyList | None:
        """The held-out keys, where the user gave a file of them."""
        given = self.run.config.data.embeddings
        if self.units.spec.flagged or given is None or given.held_out is None:
            return None
        field = f"data.embeddings.held_out: '{given.held_out}' is no column"
        return read_key_file(given.held_out, self.run.storage, field)

    def groups(self, rows: Rows) -> list[str]:
        """What membership is decided by: the group, or the key where a sample has none."""
        keys: list[str] = rows.keys.to_pylist()
        column = rows.column(layout.GROUP)
        if column is None:
            return keys
        pairs = zip(keys, column.to_pylist(), strict=True)
        return [key if own is None else own for key, own in pairs]

    def labels(self, rows: Rows) -> list[str | None]:
        """The label of each row."""
        column = rows.column(layout.LABEL)
        return [None] * len(rows.keys) if column is None else column.to_pylist()

    def held_out(self, rows: Rows, groups: Sequence[str], url: str) -> NDArray[np.bool_]:
        """(B,) bool: which samples belong to the held-out set."""
        if self.units.spec.flagged:
            column = rows.column(layout.HELD_OUT)
            if column is None:
                return np.zeros(len(groups), bool)
            flags = column.fill_null(False).to_numpy(zero_copy_only=False)
            return np.asarray(flags, dtype=bool)
        if self._listed is not None:
            return self._listed.contains(groups)
        return self.run.held_out_rule.is_held_out(groups, url)

    def vectors(self, rows: Rows) -> list[Vectors]:
        """Per model, the vectors of some rows, in the order of the modalities."""
        return [
            self._of_model(block, width)
            for block, width in zip(rows.blocks, self.units.spec.widths, strict=True)
        ]

    def _of_model(self, block: pa.RecordBatch, width: int) -> Vectors:
        size, names = block.num_rows, self.run.modalities
        present, unfit = np.zeros((size, len(names)), bool), np.zeros(size, bool)
        values = []
        for place, name in enumerate(names):
            column = block.column(block.schema.get_field_index(name))
            numbers, fits = vectors(column, width)
            values.append(numbers)
            present[:, place] = fits
            if not fits.all():
                unfit |= ~fits & column.is_valid().to_numpy(zero_copy_only=False)
        return Vectors(values, present, unfit)
