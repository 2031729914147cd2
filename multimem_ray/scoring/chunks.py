"""Chunks of a shard: consecutive samples, read and decoded, with the seeds of their views.

A chunk knows the positions of the shard that it covers (everything the reader gives out counts,
failures too) and what became of each: to be scored, held out, or failed. Chunks that cover a shard
without gap and overlap account for every sample of it, whoever made them and how often.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from safetensors.torch import load, save
from torch import Tensor

from multimem_ray.errors import SampleError
from multimem_ray.modalities.base import Array
from multimem_ray.modalities.batch import DecodedBatch, Stacked
from multimem_ray.modalities.draws import Draws
from multimem_ray.prefetch import in_order
from multimem_ray.run import Run
from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.rows import Identity, IdentityRow

PART_POSITIONS = 2048
"""Positions of a shard after which what was scored is kept in a file of its own."""

CHUNK_BYTES = 256 << 20
"""Bytes of its samples at which a chunk ends: threads that decode hold a chunk each."""

Item: TypeAlias = Sample | Failure
Placed: TypeAlias = tuple[int, Item]


@dataclass(frozen=True)
class Chunk:
    """Positions ``first`` to ``end`` (exclusive) of a shard.

    Args:
        who: The samples to be scored.
        decoded: What they were decoded to; None if there are none.
        held_out: Number of samples that belong to the held-out set.
    """

    shard: str
    first: int
    end: int
    who: Identity
    decoded: DecodedBatch | None
    held_out: int
    failures: list[Failure]

    def to_row(self) -> dict[str, Any]:
        """As two columns of bytes, for another node.

        Arrays travel as the integers they were decoded to, in safetensors; the rest as JSON.
        """
        decoded = self.decoded
        draws = None if decoded is None else decoded.draws
        about = {
            "shard": self.shard,
            "first": self.first,
            "end": self.end,
            "held_out": self.held_out,
            "who": asdict(self.who),
            "failures": [asdict(failure) for failure in self.failures],
            "views": None if draws is None else draws.views,
        }
        tensors = {} if draws is None else {"seeds": draws.seeds}
        if decoded is not None:
            for name, arrays in decoded.arrays.items():
                tensors[f"values.{name}"] = arrays.values.contiguous()
                tensors[f"shapes.{name}"] = arrays.shapes.contiguous()
                tensors[f"rows.{name}"] = decoded.rows[name].contiguous()
        return {"about": json.dumps(about).encode(), "tensors": save(tensors)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Chunk:
        """The chunk that :meth:`to_row` was called of."""
        about = json.loads(row["about"])
        who, views = Identity(**about.pop("who")), about.pop("views")
        failures = [Failure(**failure) for failure in about.pop("failures")]
        decoded = None
        if views is not None:
            tensors = load(row["tensors"])
            values, shapes, rows = (_named(tensors, kind) for kind in ("values", "shapes", "rows"))
            arrays = {name: Stacked(values[name], shapes[name]) for name in values}
            decoded = DecodedBatch(arrays, rows, Draws(tensors["seeds"], views), len(who.keys))
        return cls(**about, who=who, decoded=decoded, failures=failures)


def _named(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    start = f"{kind}."
    return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}


class ChunkReader:
    """Reads a run's shards and decodes their samples; picklable, and knows no model.

    Args:
        keep_held_out: Held-out samples are in the chunks like the others.
    """

    def __init__(self, run: Run, *, keep_held_out: bool = False) -> None:
        self._run, self._keep_held_out = run, keep_held_out
        self.batch_size = run.config.scoring.batch_size

    def items(self, shard: str) -> Iterator[Item]:
        """What counts as a position of the shard, in its order."""
        return self._run.read(shard)

    def identity(self, sample: Sample) -> IdentityRow | None:
        """What is known of a sample beside its modalities; None: it is held out.

        Raises:
            SampleError: Its json cannot be read.
        """
        run = self._run
        group = run.group(sample)
        if not self._keep_held_out and run.held_out_rule.is_held_out([group], sample.shard)[0]:
            return None
        label, partition = run.label_of(sample), run.partition_of_sample(sample)
        return sample.key, sample.index, label, group, partition

    def unread(self, shard: str, position: int, detail: str) -> list[Failure]:
        """What is recorded of a shard that cannot be read from a position on."""
        del position
        return [Failure(shard, None, None, "read", "killed_worker", detail)]

    def chunks(
        self, shard: str, done: Sequence[tuple[int, int]] = (), threads: int = 1
    ) -> Generator[Chunk]:
        """The chunks of a shard, of ``scoring.batch_size`` positions, in order.

        A chunk ends at every multiple of ``PART_POSITIONS``, too, and behind the sample with which
        it has ``CHUNK_BYTES``.

        Args:
            done: Ranges of positions that are left out, ascending.
            threads: Chunks that are decoded at the same time, each read into memory as a whole.
                With one, a sample's bytes are gone before the next are read.
        """
        placed = groupby(self._placed(shard, done), key=itemgetter(0))
        spans = ((first, (item for _, item in group)) for first, group in placed)
        if threads == 1:
            yield from (self.chunk(shard, *span) for span in spans)
            return
        read = ((first, _consumed(items)) for first, items in spans)
        yield from in_order(lambda span: self.chunk(shard, *span), read, threads)

    def chunk(self, shard: str, first: int, items: Iterable[Item]) -> Chunk:
        """The chunk of adjacent items; those to be scored with the seeds of their views.

        Args:
            first: Position of the first item.
        """
        who, decoded, failures = list[IdentityRow](), list[dict[str, Array]](), list[Failure]()
        held_out, end = 0, first
        decoder, scoring = self._run.decoder, self._run.config.scoring
        for item in items:
            end += 1
            if isinstance(item, Failure):
                failures.append(item)
                continue
            try:
                identity = self.identity(item)
                if identity is None:
                    held_out += 1
                    continue
                decoded.append(decoder.decode(item))
            except SampleError as error:
                failures.append(as_failure(item, error))
                continue
            who.append(identity)
        samples = Identity.of(who)
        batch = None
        if who:
            batch = decoder.stacked(samples.keys, decoded, scoring.seed, range(scoring.views))
        return Chunk(shard, first, end, samples, batch, held_out, failures)

    def undone(self, shard: str, done: Sequence[tuple[int, int]]) -> Iterator[Placed]:
        """Position and item of whatever is not in the ranges ``done``."""
        ranges = deque(done)
        for position, item in enumerate(self.items(shard)):
            while ranges and position >= ranges[0][1]:
                ranges.popleft()
            if not ranges or position < ranges[0][0]:
                yield position, item

    def _placed(self, shard: str, done: Sequence[tuple[int, int]]) -> Iterator[Placed]:
        """Whatever is not in the ranges ``done``, with the first position of its chunk."""
        first = previous = -1
        size = 0
        for position, item in self.undone(shard, done):
            adjacent = first >= 0 and position == previous + 1
            full = position - first == self.batch_size or position % PART_POSITIONS == 0
            if full or not adjacent or size >= CHUNK_BYTES:
                first, size = position, 0
            previous = position
            size += item.size if isinstance(item, Sample) else 0
            yield first, item


def _consumed(items: Iterable[Item]) -> Iterator[Item]:
    """The items, read now and let go of one by one as they are taken."""
    held = deque(items)
    return (held.popleft() for _ in range(len(held)))


def as_failure(sample: Sample, error: SampleError) -> Failure:
    """The row of ``errors/`` for a sample that could not be used."""
    return Failure(sample.shard, sample.key, sample.index, error.stage, error.kind, error.reason)
