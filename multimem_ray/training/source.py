"""Shards to decoded training samples.

Membership is decided from the key (or group) before anything is decoded: a sample that no model
trains on is read and dropped. Samples that cannot be used are left out here; scoring meets them
again and writes them to ``errors/``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from multimem_ray.errors import SampleError
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo
from multimem_ray.training.part import RankShard
from multimem_ray.training.records import DecodedSample, to_table

BLOCK_SAMPLES = 256
WHOLE = RankShard()


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
    for item in read_shard(shard.url, run.storage):
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
