"""Chunks of a shard: consecutive samples, read, decoded and seen from several sides.

A chunk knows the positions of the shard that it covers (everything the reader gives out counts,
failures too) and what became of each: to be scored, held out, or failed. Chunks that cover a shard
without gap and overlap account for every sample of it, whoever made them and how often.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter

from multimem_ray.errors import SampleError
from multimem_ray.modalities.base import Array
from multimem_ray.prefetch import in_order
from multimem_ray.run import Run
from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.bank import Views, make_views
from multimem_ray.scoring.rows import Identity
from multimem_ray.shards.reader import read_shard

PART_POSITIONS = 2048
"""Positions of a shard after which what was scored is kept in a file of its own."""


@dataclass(frozen=True)
class Chunk:
    """Positions ``first`` to ``end`` (exclusive) of a shard.

    Args:
        who: The samples to be scored.
        views: Their views; None if there are none.
        held_out: Number of samples that belong to the held-out set.
    """

    first: int
    end: int
    who: Identity
    views: Views | None
    held_out: int
    failures: list[Failure]


@dataclass
class ChunkBuilder:
    """Decodes samples one by one and makes a chunk of them."""

    run: Run
    shard: str
    first: int
    keep_held_out: bool = False
    end: int = field(init=False)
    _samples: list[Sample] = field(default_factory=list)
    _groups: list[str] = field(default_factory=list)
    _labels: list[str | None] = field(default_factory=list)
    _partitions: list[str | None] = field(default_factory=list)
    _decoded: list[dict[str, Array]] = field(default_factory=list)
    _failures: list[Failure] = field(default_factory=list)
    _held_out: int = 0

    def __post_init__(self) -> None:
        self.end = self.first

    def add(self, item: Sample | Failure) -> None:
        """The next item of the shard."""
        self.end += 1
        if isinstance(item, Failure):
            self._failures.append(item)
            return
        run = self.run
        try:
            group = run.group(item)
            if not self.keep_held_out and run.held_out_rule.is_held_out([group], self.shard)[0]:
                self._held_out += 1
                return
            label, decoded = run.label_of(item), run.decoder.decode(item)
        except SampleError as error:
            self._failures.append(as_failure(item, error))
            return
        # What the decoder made is all that is needed; the bytes may go.
        self._samples.append(Sample(item.key, item.shard, item.index, {}))
        self._groups.append(group)
        self._labels.append(label)
        self._partitions.append(run.partition_of_sample(item))
        self._decoded.append(decoded)

    def build(self) -> Chunk:
        """The chunk, with ``scoring.views`` views of each sample to be scored."""
        keys = [sample.key for sample in self._samples]
        indices = [sample.index for sample in self._samples]
        who = Identity(keys, indices, self._labels, self._groups, self._partitions)
        views = make_views(self.run, keys, self._decoded) if keys else None
        return Chunk(self.first, self.end, who, views, self._held_out, self._failures)


def decoded_chunks(
    run: Run,
    shard: str,
    done: Sequence[tuple[int, int]] = (),
    *,
    keep_held_out: bool = False,
    threads: int = 1,
) -> Generator[Chunk]:
    """The chunks of a shard, of ``scoring.batch_size`` positions, in order.

    A chunk ends at every multiple of ``PART_POSITIONS``, too.

    Args:
        done: Ranges of positions that are left out, ascending.
        keep_held_out: Held-out samples are in the chunks like the others.
        threads: Chunks that are decoded at the same time, each read into memory as a whole. With
            one, a sample's bytes are gone before the next are read.
    """
    placed = groupby(_placed(run, shard, done), key=itemgetter(0))
    spans = ((first, (item for _, item in group)) for first, group in placed)
    decode = partial(_decoded, run, shard, keep_held_out)
    if threads == 1:
        yield from map(decode, spans)
    else:
        yield from in_order(decode, ((first, _gone(items)) for first, items in spans), threads)


def decoded_chunk(
    run: Run,
    shard: str,
    first: int,
    items: Iterable[Sample | Failure],
    *,
    keep_held_out: bool = False,
) -> Chunk:
    """The chunk of adjacent items of a shard, from position ``first`` on."""
    builder = ChunkBuilder(run, shard, first, keep_held_out)
    for item in items:
        builder.add(item)
    return builder.build()


def _decoded(
    run: Run, shard: str, keep_held_out: bool, span: tuple[int, Iterable[Sample | Failure]]
) -> Chunk:
    return decoded_chunk(run, shard, *span, keep_held_out=keep_held_out)


def _gone(items: Iterable[Sample | Failure]) -> Iterator[Sample | Failure]:
    """The items, read now and let go of one by one as they are taken."""
    held = deque(items)
    return (held.popleft() for _ in range(len(held)))


def _placed(
    run: Run, shard: str, done: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, Sample | Failure]]:
    """Whatever is not in the ranges ``done``, with the first position of its chunk."""
    first = previous = -1
    for position, item in undone(run, shard, done):
        adjacent = first >= 0 and position == previous + 1
        full = position - first == run.config.scoring.batch_size or position % PART_POSITIONS == 0
        first = position if full or not adjacent else first
        previous = position
        yield first, item


def undone(
    run: Run, shard: str, done: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, Sample | Failure]]:
    """Position and item of whatever is not in the ranges ``done``."""
    ranges = list(done)
    for position, item in enumerate(read_shard(shard, run.storage)):
        while ranges and position >= ranges[0][1]:
            ranges.pop(0)
        if not ranges or position < ranges[0][0]:
            yield position, item


def as_failure(sample: Sample, error: SampleError) -> Failure:
    """The row of ``errors/`` for a sample that could not be used."""
    return Failure(sample.shard, sample.key, sample.index, error.stage, error.kind, error.reason)
