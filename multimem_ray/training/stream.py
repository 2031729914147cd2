"""Epochs of training samples: the same samples in the same order for every bank and attempt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from multimem_ray.distributed.session import data_context, on_ray
from multimem_ray.prefetch import in_order
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.store.names import shard_id
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.order import shard_order, shuffled
from multimem_ray.training.records import DecodedSample, from_table, schema
from multimem_ray.training.source import decoded_tables
from multimem_ray.training.split import Split

# Starting the processes of a Ray Data pipeline costs about what decoding this much does.
SMALL_BYTES = 256 << 20
# Less than a core, so that a node of one core decodes beside the slivers that trainers take.
_DECODER_CPUS = 0.95


def decodes_on_the_cluster(run: Run, size: int) -> bool:
    """Whether shards of so many bytes are decoded by Ray Data, or in a bank's own process."""
    choice = run.config.resources.train.decode
    return choice == "ray" or (choice == "auto" and size > SMALL_BYTES)


@dataclass
class TrainingStream:
    """Training samples of a run, epoch by epoch.

    Args:
        run: The run.
        shards: Its shards; their order does not matter.
        cache: Where decoded shards are kept on this node.
        decoders: Shards decoded at the same time, where this process decodes itself.
        split: Which samples are decoded here, where several ranks train; default all.
    """

    run: Run
    shards: Sequence[FileInfo]
    cache: DecodedCache
    decoders: int = 1
    split: Split = field(default_factory=Split)
    _names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = [shard.url.rsplit("/", 1)[-1] for shard in self.shards]

    def epoch(self, number: int) -> Iterator[tuple[DecodedSample, float]]:
        """Shuffled samples, each with the share of the epoch's shards read before its own.

        The same on every rank, but that samples of other ranks come without their arrays.
        """
        training = self.run.config.training
        order = shard_order(self._names, training.seed, number)
        return shuffled(self._in_order(order), training.shuffle_buffer, training.seed, number)

    def _in_order(self, order: Sequence[int]) -> Iterator[tuple[DecodedSample, float]]:
        absent = [i for i in order if self.cache.get(self.name_of(i)) is None]
        decoded = self._decode(absent)
        for place, index in enumerate(order):
            kept = self.cache.get(self.name_of(index))
            tables = [kept] if kept is not None else decoded.shard(index)
            for table in self.split.usable(tables):
                for sample in from_table(table, self.run.modalities):
                    yield sample, place / len(order)

    def name_of(self, index: int) -> str:
        """What a shard's decoded samples are called in the cache."""
        return self.split.part.named(shard_id(self.shards[index].url))

    def _decode(self, wanted: Sequence[int]) -> _DecodedShards:
        if not wanted:
            return _DecodedShards(self, iter(()))
        size = sum(self.shards[i].size for i in wanted)
        away = on_ray() and decodes_on_the_cluster(self.run, size)
        return _DecodedShards(self, self._on_the_cluster(wanted) if away else self._here(wanted))

    def _here(self, wanted: Sequence[int]) -> Iterator[pa.Table]:
        """Tables of the wanted shards in order, decoded in threads of this process."""

        def decoded(index: int) -> list[pa.Table]:
            return list(decoded_tables(self.run, self.shards[index], index, self.split.part))

        for tables in in_order(decoded, wanted, self.decoders):
            yield from _not_empty(tables)

    def _on_the_cluster(self, wanted: Sequence[int]) -> Iterator[pa.Table]:
        """Tables of the wanted shards in order, decoded by Ray Data."""
        import ray.data

        from multimem_ray.training.datasource import TrainingSource

        source = TrainingSource(self.run, [(i, self.shards[i]) for i in wanted], self.split.part)
        # The order is part of the result: without it, two banks would train on other batches.
        with data_context(preserve_order=True):
            dataset = ray.data.read_datasource(
                source, override_num_blocks=len(wanted), num_cpus=_DECODER_CPUS
            )
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from _by_shard(table)


class _DecodedShards:
    """Tables of the wanted shards as they are handed out, in order; fills the cache."""

    def __init__(self, stream: TrainingStream, tables: Iterator[pa.Table]) -> None:
        self._stream = stream
        self._tables = tables
        self._ahead: pa.Table | None = None

    def shard(self, index: int) -> Iterator[pa.Table]:
        """Tables of one shard, which must be asked for in the order they were wanted."""
        kept: list[pa.Table] = []
        while True:
            table = self._ahead if self._ahead is not None else next(self._tables, None)
            self._ahead = None
            if table is None:
                break
            if table["shard"][0].as_py() != index:
                self._ahead = table
                break
            kept.append(table)
            yield table
        name = self._stream.name_of(index)
        self._stream.cache.put(name, kept, schema(self._stream.run.modalities))


def _not_empty(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    return (table for table in tables if table.num_rows)


def _by_shard(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table where the shard changes; empty ones vanish."""
    numbers = table["shard"].to_pylist()
    start = 0
    for row in range(1, len(numbers) + 1):
        if row == len(numbers) or numbers[row] != numbers[start]:
            yield table.slice(start, row - start)
            start = row
