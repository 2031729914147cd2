"""Chunks: every position of a shard once, here or on another node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multimem_ray.errors import SampleError
from multimem_ray.sample import Sample
from multimem_ray.scoring import chunks
from multimem_ray.scoring.chunks import Chunk, ChunkReader
from tests.small import small_run


def test_chunks_cover_a_shard_and_leave_out_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "PART_POSITIONS", 6)
    run, shards = small_run(tmp_path, "scoring.batch_size=4")
    url = shards.scored[0].url
    every = list(ChunkReader(run).chunks(url))
    assert [c.first for c in every] == [0, *(c.end for c in every[:-1])]
    assert every[-1].end == 20
    assert {6, 12, 18} <= {c.end for c in every}
    rest = list(ChunkReader(run).chunks(url, [(0, 5), (9, 11), (19, 20)]))
    covered = {at for c in rest for at in range(c.first, c.end)}
    assert covered == {5, 6, 7, 8, *range(11, 19)}


def test_a_chunk_ends_where_its_samples_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=8")
    url = shards.scored[0].url
    sizes = [item.size for item in run.read(url) if isinstance(item, Sample)]
    monkeypatch.setattr(chunks, "CHUNK_BYTES", sum(sizes[:3]))
    alone, together = (list(ChunkReader(run).chunks(url, threads=n)) for n in (1, 3))
    assert alone[0].end == 3
    assert alone[-1].end == len(sizes)
    assert [c.first for c in alone[1:]] == [c.end for c in alone[:-1]]
    assert [(c.first, c.end) for c in together] == [(c.first, c.end) for c in alone]


def test_a_label_that_is_too_long_is_an_error_of_its_sample(tmp_path: Path) -> None:
    run, _ = small_run(tmp_path)
    sample = Sample("a", "x.tar", 0, {"cls": b"y" * 9000})
    with pytest.raises(SampleError, match=r"cls .*data.limits.name_bytes = 8192"):
        replace(run, label="cls").label_of(sample)


def test_a_chunk_arrives_as_it_was_sent(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "scoring.batch_size=7")
    for chunk in ChunkReader(run).chunks(shards.scored[0].url):
        there = Chunk.from_row(chunk.to_row())
        assert (there.first, there.end, there.who) == (chunk.first, chunk.end, chunk.who)
        assert (there.held_out, there.failures) == (chunk.held_out, chunk.failures)
        assert there.decoded is not None
        assert chunk.decoded is not None
        assert (there.decoded.size, there.decoded.views) == (len(chunk.who.keys), 2)
        a, b = (run.decoder.views(one) for one in (there.decoded, chunk.decoded))
        assert a.names == b.names
        for name in a.names:
            assert a.values[name].dtype == b.values[name].dtype
            assert torch.equal(a.values[name], b.values[name])
            assert torch.equal(a.rows[name], b.rows[name])


def test_values_travel_with_a_chunk(tmp_path: Path) -> None:
    run, shards = small_run(tmp_path, "scoring.partition_by=json.source")
    (chunk, *_) = ChunkReader(run).chunks(shards.scored[0].url)
    expected = [f"tape-{index // 2}" for index in chunk.who.indices]
    assert Chunk.from_row(chunk.to_row()).who.partitions == expected
    assert chunk.who.at(3).partitions == expected[3:4]
