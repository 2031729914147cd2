"""The held-out set in numbers: what is stored comes back, and sums are those of all samples."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load, save

from multimem_ray.sample import Failure
from multimem_ray.scoring.held_out_stats import (
    Embedded,
    EmbeddedParts,
    HeldOutStatistics,
    summarize,
)
from multimem_ray.storage import Storage
from multimem_ray.store.parts import Part

NAMES = ("image", "text")


def embedded(samples: int, seed: int) -> Embedded:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.nn.functional.normalize(torch.randn(3, samples, 2, 5, generator=generator), dim=-1)
    alignment = (mean @ mean.transpose(-1, -2)).double()
    return Embedded(mean, alignment, torch.ones(samples, 2, dtype=torch.bool))


def test_parts_come_back_with_their_failures(tmp_path: Path) -> None:
    folder = EmbeddedParts(Storage(), str(tmp_path))
    failure = Failure("a.tar", "k", 7, "decode", "empty", "it is")
    folder.write(Part(2, 7, embedded(4, 0), 0, [failure]))
    (part,) = folder.read()
    assert (part.first, part.end, part.failures) == (2, 7, [failure])
    assert torch.equal(part.rows.mean, embedded(4, 0).mean)


def test_a_part_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    folder = EmbeddedParts(Storage(), str(tmp_path))
    stored = load(folder.encoded(Part(0, 4, embedded(4, 0), 0, [])))
    old = {"shard": "a.tar", "key": "k", "stage": "score", "detail": "it kills"}
    stored["killed"] = torch.frombuffer(bytearray(json.dumps([old]).encode()), dtype=torch.uint8)
    part = folder.decoded(save(stored), 0, 6)
    assert [one.error for one in part.failures] == ["killed_worker"]
    assert part.held_out == 1, "one that could not be decoded, of which nothing was written"


def test_parts_sum_up_like_the_whole() -> None:
    a, b = embedded(4, 0), embedded(6, 1)
    whole = [Part(0, 10, Embedded.joined([a, b]), 0, [])]
    parts = [Part(0, 4, a, 0, []), Part(0, 6, b, 0, [])]
    one, two = (summarize(lambda p=p: p, NAMES, target=True) for p in (whole, parts))  # type: ignore[misc]
    torch.testing.assert_close(one.statistics.means, two.statistics.means)
    assert one.statistics.levels is not None
    assert (one.samples, one.modalities, one.models) == (10, {"image": 10, "text": 10}, two.models)
    assert one.target == two.target
    again = HeldOutStatistics.from_bytes(one.statistics.to_bytes())
    assert torch.equal(again.means, one.statistics.means)
    assert again.levels is not None
    assert again.levels.counts == one.statistics.levels.counts
    torch.testing.assert_close(
        one.statistics.means[0, 0], torch.cat([a.mean, b.mean], 1)[0, :, 0].double().mean(0)
    )
