"""Decoded samples as Arrow tables: how they travel between processes and lie in the cache.

Arrays go as their bytes beside dtype and shape, so reading one back is a view, not a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from multimem_ray.modalities.base import Array


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A training sample after decoding.

    Args:
        key: Its key; seeds its views.
        group: What decides its membership.
        arrays: Modality → canonical array, of the modalities it has; empty if another rank
            decodes it.
        index: Its place in its shard.
    """

    key: str
    group: str
    arrays: Mapping[str, Array]
    index: int = 0


def schema(modalities: Sequence[str]) -> pa.Schema:
    """Columns of a table of decoded samples."""
    fields = [
        pa.field("shard", pa.int64()),
        pa.field("index", pa.int64()),
        pa.field("key", pa.string()),
        pa.field("group", pa.string()),
    ]
    for name in modalities:
        fields += [
            pa.field(f"{name}.data", pa.large_binary()),
            pa.field(f"{name}.dtype", pa.string()),
            pa.field(f"{name}.shape", pa.list_(pa.int32())),
        ]
    return pa.schema(fields)


def to_table(samples: Sequence[DecodedSample], modalities: Sequence[str], shard: int) -> pa.Table:
    """Pack samples of one shard, which is named by its number in the run."""
    columns: dict[str, list[object]] = {
        "shard": [shard] * len(samples),
        "index": [sample.index for sample in samples],
        "key": [sample.key for sample in samples],
        "group": [sample.group for sample in samples],
    }
    for name in modalities:
        arrays = [sample.arrays.get(name) for sample in samples]
        columns[f"{name}.data"] = [None if a is None else a.tobytes() for a in arrays]
        columns[f"{name}.dtype"] = [None if a is None else a.dtype.str for a in arrays]
        columns[f"{name}.shape"] = [None if a is None else list(a.shape) for a in arrays]
    return pa.table(columns, schema=schema(modalities))


def from_table(table: pa.Table, modalities: Sequence[str]) -> Iterator[DecodedSample]:
    """Unpack samples; their arrays are read-only views into the table."""
    for batch in table.to_batches():
        keys, groups = batch["key"].to_pylist(), batch["group"].to_pylist()
        indices = batch["index"].to_pylist()
        columns = [
            (
                name,
                batch[f"{name}.data"],
                batch[f"{name}.dtype"].to_pylist(),
                batch[f"{name}.shape"].to_pylist(),
            )
            for name in modalities
        ]
        for row in range(batch.num_rows):
            arrays = {
                name: np.frombuffer(data[row].as_buffer(), dtype=dtypes[row]).reshape(shapes[row])
                for name, data, dtypes, shapes in columns
                if dtypes[row] is not None
            }
            yield DecodedSample(keys[row], groups[row], arrays, indices[row])
