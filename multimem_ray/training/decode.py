"""Shards to decoded training samples.

Membership is decided from the key (or group) before anything is decoded: a sample that no model
trains on is read and dropped. Samples that cannot be used are left out here; scoring meets them
again and writes them to ``errors/``.

Decoded samples travel between processes, and lie in the cache, as Arrow tables. Arrays go as their
bytes beside dtype and shape, so reading one back is a view, not a copy. Nothing here loads torch:
the processes that only decode need none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from multimem_ray.errors import SampleError
from multimem_ray.modalities.base import Array
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.storage import FileInfo

BLOCK_SAMPLES = 256


@dataclass(frozen=True)
class RankShard:
    """One rank's share of the samples: those whose place in their shard leaves ``rank``."""

    rank: int = 0
    world: int = 1

    def has(self, index: int) -> bool:
        """Whether the sample at this place of its shard is decoded here."""
        return index % self.world == self.rank

    def named(self, name: str) -> str:
        """The name of what is kept of a shard on this rank."""
        return name if self.world == 1 else f"{name}-{self.rank}of{self.world}"


WHOLE = RankShard()


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """A training sample after decoding.

    Args:
        key: Its key; seeds its views.
        group: What decides its membership.
        arrays: Modality → canonical array, of the modalities it has; empty if another rank
            decodes it.
        index: Its place in its shard.
        shard: What its shard is called in the run; empty until it is read back.
    """

    key: str
    group: str
    arrays: Mapping[str, Array]
    index: int = 0
    shard: str = ""


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


def from_table(
    table: pa.Table, modalities: Sequence[str], shard: str = ""
) -> Iterator[DecodedSample]:
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
            yield DecodedSample(keys[row], groups[row], arrays, indices[row], shard)


def decoded_tables(
    run: Run, shard: FileInfo, number: int, part: RankShard = WHOLE
) -> Iterator[pa.Table]:
    """Decoded training samples of a shard, in its order, 256 to a table.

    The last table may be empty, so that a shard without training samples still gives one.
    """
    pending: list[DecodedSample] = []
    for sample in training_samples(run, shard, part):
        pending.append(sample)
        if len(pending) == BLOCK_SAMPLES:
            yield to_table(pending, run.modalities, number)
            pending = []
    yield to_table(pending, run.modalities, number)


def training_samples(run: Run, shard: FileInfo, part: RankShard = WHOLE) -> Iterator[DecodedSample]:
    """Samples of a shard that at least one model may train on.

    Those of this part are decoded, and left out where that fails; the others come without arrays.
    """
    for item in run.read(shard.url):
        if not isinstance(item, Sample):
            continue
        try:
            group = run.group(item)
            if run.held_out_rule.is_held_out([group], shard.url)[0]:
                continue
            if run.design.members([group]).any():
                arrays = run.decoder.decode(item) if part.has(item.index) else {}
                yield DecodedSample(item.key, group, arrays, item.index)
        except SampleError:
            continue
