"""What the parts do on this machine, one process: reading, decoding, views, consistency.

Each part runs on its own, several times, and the fastest counts: on a shared machine, everything
else is somebody else's work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from multimem_ray.metric import agreement, cmc
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.fields import find_fields
from multimem_ray.sample import Sample
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

MOST_SAMPLES = 500
REPEATS = 3


@dataclass(frozen=True)
class Rate:
    """A part, what it does in a second, and the unit of that."""

    part: str
    value: float
    unit: str


def measure(shards: list[str]) -> Iterator[Rate]:
    """Rates of all parts on these shards."""
    storage = Storage()
    files = find_shards(shards, storage).shards
    url, size = files[0].url, files[0].size
    yield Rate("read a shard", size / fastest(lambda: list(read_shard(url, storage))) / 1e6, "MB/s")
    found = [item for item in read_shard(url, storage) if isinstance(item, Sample)]
    yield from modality_rates(found[:MOST_SAMPLES])
    yield from consistency_rates()


def modality_rates(samples: list[Sample]) -> Iterator[Rate]:
    """Decoding and one random view, modality by modality, of the samples that have it."""
    decoder = Decoder(find_fields(samples))
    for modality in decoder.modalities:
        values = [decoder.fields.value(sample, modality.name) for sample in samples]
        values = [value for value in values if value is not None]
        decode = partial(_each, modality.decode, values)
        named = [{modality.name: modality.decode(value)} for value in values]
        view = partial(_each, partial(_view, decoder), named)
        yield Rate(f"decode {modality.name}", len(values) / fastest(decode), "samples/s")
        yield Rate(f"view of {modality.name}", len(values) / fastest(view), "views/s")


def _each(function: Callable[[Any], object], values: list[Any]) -> None:
    for value in values:
        function(value)


def _view(decoder: Decoder, decoded: dict[str, Any]) -> object:
    return decoder.views("key", decoded, seed=0, view=0)


def consistency_rates(
    samples: int = 2048, views: int = 4, modalities: int = 4, dim: int = 64
) -> Iterator[Rate]:
    """The metric itself for one model; the size of the held-out set does not enter."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(
        torch.randn(views, samples, modalities, dim, generator=generator), dim=-1
    )
    present = torch.ones(samples, modalities, dtype=torch.bool)
    means = embeddings[0].mean(0)
    seconds = fastest(lambda: cmc(agreement(embeddings, present, means), present))
    yield Rate(
        f"consistency, {views} views of {modalities} modalities", samples / seconds, "samples/s"
    )


def fastest(work: Callable[[], object], repeats: int | None = None) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(repeats or REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
