"""Epochs of training samples: the same samples in the same order for every bank and attempt.

The order is a function of the seed alone; where a sample was decoded, now or earlier, by whom and
for how many models changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, distributed

from multimem_ray.design.hashing import seed_of, uniform
from multimem_ray.distributed.session import data_context, on_ray
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.models.collectives import rank, world_size
from multimem_ray.prefetch import in_order
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.store.names import shard_id
from multimem_ray.training.cache import DecodedCache
from multimem_ray.training.decode import (
    DecodedSample,
    RankShard,
    decoded_tables,
    from_table,
    schema,
)

T = TypeVar("T")
Views = Mapping[str, Tensor]

_CPU = torch.device("cpu")

VIEWED_TOGETHER = 128
"""Samples whose views are made in one go: their bytes stay in a processor's cache."""

# Starting the processes of a Ray Data pipeline costs about what decoding this much does.
SMALL_BYTES = 256 << 20
# Less than a core, so that a node of one core decodes beside the slivers that trainers take.
_DECODER_CPUS = 0.95


def decodes_on_the_cluster(choice: str, size: int) -> bool:
    """Whether shards of so many bytes are decoded by Ray Data, or in a bank's own process.

    Args:
        choice: ``resources.train.decode``.
        size: Bytes of the shards.
    """
    return choice == "ray" or (choice == "auto" and size > SMALL_BYTES)


class TrainingSample(NamedTuple):
    """A sample on its way to the models of a bank.

    Attributes:
        views: Modality → view; None where another rank has the sample.
        members: Which models of the run train on it.
        share: Share of the epoch that is done with it.
        key: Its key; policies know it by that, and by its shard where keys repeat.
        other_views: Makes the views that a policy may ask for instead; None if there are none.
        shard: What its shard is called in the run.
    """

    views: Views | None
    members: Sequence[bool]
    share: float
    key: str = ""
    other_views: Callable[[], Views] | None = None
    shard: str = ""


def shard_order(names: Sequence[str], seed: int, epoch: int) -> list[int]:
    """Positions of the shards in the order in which an epoch reads them.

    Each shard's place follows from its own name, so the order in which they were listed does
    not matter.
    """
    places = uniform(seed, f"shards-{epoch}", names)
    return sorted(range(len(names)), key=lambda i: (places[i], names[i]))


def shuffled(items: Iterable[T], size: int, seed: int, epoch: int) -> Iterator[T]:
    """Shuffle a stream through a buffer of ``size`` items."""
    rng = np.random.default_rng(seed_of(seed, "buffer", epoch))
    buffer: list[T] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = int(rng.integers(size))
        ready, buffer[place] = buffer[place], item
        yield ready
    rng.shuffle(buffer)
    yield from buffer


class Split:
    """Who decodes what, when several ranks train a bank: each sample on one of them.

    A rank decodes every world-th sample of a shard and reads past the others, of which it knows the
    key: enough to follow the same order and to cut the same batches. Its part of a batch is what it
    has decoded of it. Whether a sample can be decoded at all only its own rank knows, so ranks tell
    each other, shard by shard, which of theirs could: what could not be is in nobody's batch, as in
    a training on one rank. All ranks must ask, in the same order.
    """

    def __init__(self) -> None:
        self.part = RankShard(rank(), world_size())
        # A process group of its own, since samples are prepared beside the steps.
        self._group: Any = distributed.new_group(backend="gloo") if world_size() > 1 else None

    def usable(self, tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
        """Tables of a shard, without the samples that their rank could not decode."""
        if self._group is None:
            return tables
        tables = list(tables)
        indices = [table["index"].to_numpy() for table in tables]
        own = np.concatenate([np.empty(0, np.int64), *indices])
        own = own[own % self.part.world == self.part.rank]
        everywhere: list[Any] = [None] * self.part.world
        distributed.all_gather_object(everywhere, own, group=self._group)
        decoded = np.concatenate(everywhere)
        return [
            table.filter(pa.array(np.isin(places, decoded)))
            for table, places in zip(tables, indices, strict=True)
        ]


@dataclass
class TrainingStream:
    """Training samples of a run, epoch by epoch.

    Args:
        run: The run.
        shards: Its shards; their order does not matter.
        cache: Where decoded shards are kept on this node.
        decoders: Shards decoded at the same time, where this process decodes itself.
        split: Which samples are decoded here, where several ranks train; default all.
        device: Where views are made.
    """

    run: Run
    shards: Sequence[FileInfo]
    cache: DecodedCache
    decoders: int = 1
    split: Split = field(default_factory=Split)
    device: torch.device = _CPU
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

    def samples(
        self,
        number: int,
        needs: Callable[[int, Sequence[bool]], bool] | None = None,
        other_decoder: Decoder | None = None,
    ) -> Iterator[TrainingSample]:
        """Views of an epoch's samples, where this rank has them, with their membership.

        Args:
            number: The epoch.
            needs: Of a sample's place and membership, whether it is needed; views of others are
                spared. Default: all are.
            other_decoder: Makes the views that a policy may ask for instead.
        """
        run, epoch, place = self.run, self.epoch(number), 0
        while block := list(islice(epoch, VIEWED_TOGETHER)):
            members = run.design.members([sample.group for sample, _ in block]).tolist()
            # Of the others another rank has the arrays, or they were used before a stop.
            rows = [
                row
                for row, (sample, _) in enumerate(block)
                if sample.arrays and (needs is None or needs(place + row, members[row]))
            ]
            made = viewed(run, [block[row][0] for row in rows], number, self.device)
            views = dict(zip(rows, made, strict=True))
            for row, (sample, share) in enumerate(block):
                other = None
                if other_decoder is not None and row in views:
                    other = partial(_other_views, other_decoder, run, sample, number, self.device)
                own = views.get(row), members[row], share, sample.key, other, sample.shard
                yield TrainingSample(*own)
            place += len(block)

    def _in_order(self, order: Sequence[int]) -> Iterator[tuple[DecodedSample, float]]:
        absent = [i for i in order if self.cache.get(self.name_of(i)) is None]
        decoded = self._decode(absent)
        for place, index in enumerate(order):
            kept = self.cache.get(self.name_of(index))
            tables = [kept] if kept is not None else decoded.shard(index)
            shard = self.run.shard_name(self.shards[index].url)
            for table in self.split.usable(tables):
                for sample in from_table(table, self.run.modalities, shard):
                    yield sample, place / len(order)

    def name_of(self, index: int) -> str:
        """What a shard's decoded samples are called in the cache."""
        return self.split.part.named(shard_id(self.shards[index].url))

    def _decode(self, indices: Sequence[int]) -> _DecodedShards:
        if not indices:
            return _DecodedShards(self, iter(()))
        size = sum(self.shards[i].size for i in indices)
        away = on_ray() and decodes_on_the_cluster(self.run.config.resources.train.decode, size)
        return _DecodedShards(self, self._on_the_cluster(indices) if away else self._here(indices))

    def _here(self, indices: Sequence[int]) -> Iterator[pa.Table]:
        """Tables of some shards in order, decoded in threads of this process."""

        def decoded(index: int) -> list[pa.Table]:
            return list(decoded_tables(self.run, self.shards[index], index, self.split.part))

        for tables in in_order(decoded, indices, self.decoders):
            yield from (table for table in tables if table.num_rows)

    def _on_the_cluster(self, indices: Sequence[int]) -> Iterator[pa.Table]:
        """Tables of some shards in order, decoded by Ray Data."""
        import ray.data

        from multimem_ray.training.datasource import TrainingSource

        source = TrainingSource(self.run, [(i, self.shards[i]) for i in indices], self.split.part)
        # The order is part of the result: without it, two banks would train on other batches.
        with data_context(preserve_order=True):
            dataset = ray.data.read_datasource(
                source, override_num_blocks=len(indices), num_cpus=_DECODER_CPUS
            )
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from _by_shard(table)


def viewed(
    run: Run,
    samples: Sequence[DecodedSample],
    epoch: int,
    device: torch.device,
    decoder: Decoder | None = None,
) -> list[dict[str, Tensor]]:
    """The views of samples in an epoch, as ``training.augment`` has it; made on a device.

    Args:
        decoder: Makes others than those of the run.
    """
    if not samples:
        return []
    decoder, training = decoder or run.decoder, run.config.training
    keys, arrays = [sample.key for sample in samples], [sample.arrays for sample in samples]
    if training.augment:
        batch = decoder.stacked(keys, arrays, training.seed, [epoch], "train")
    else:
        batch = decoder.clean(arrays)
    return decoder.views(batch.to(device)).samples()


def _other_views(
    decoder: Decoder, run: Run, sample: DecodedSample, epoch: int, device: torch.device
) -> Views:
    return viewed(run, [sample], epoch, device, decoder)[0]


class _DecodedShards:
    """Tables of some shards as they are handed out, in order; fills the cache."""

    def __init__(self, stream: TrainingStream, tables: Iterator[pa.Table]) -> None:
        self._stream = stream
        self._tables = tables
        self._ahead: pa.Table | None = None

    def shard(self, index: int) -> Iterator[pa.Table]:
        """Tables of one shard, which must be asked for in their order."""
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


def _by_shard(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table where the shard changes; empty ones vanish."""
    numbers = table["shard"].to_pylist()
    start = 0
    for row in range(1, len(numbers) + 1):
        if row == len(numbers) or numbers[row] != numbers[start]:
            yield table.slice(start, row - start)
            start = row
