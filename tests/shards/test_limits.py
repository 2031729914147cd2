"""Shards made to fill memory: what is beyond a limit is named, and the rest is read."""

from __future__ import annotations

import gzip
import json
import tarfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from multimem_ray.config import LimitsConfig
from multimem_ray.errors import SampleError
from tests.shards.tars import archive, padded, parted, raw_header, read

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.tar"


@contextmanager
def below(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def long_name(name: bytes, form: str) -> bytes:
    """What gives the member after it another name."""
    if form == "gnu":
        data = name + b"\0"
        return raw_header(b"././@LongLink", b"%011o" % len(data), b"L", b"ustar  \0") + padded(data)
    size = len(name) + 15
    record = b"%d path=%s\n" % (size, name)
    while len(record) != size:
        size = len(record)
        record = b"%d path=%s\n" % (size, name)
    return raw_header(b"pax", b"%011o" % len(record), b"x") + padded(record)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_names_are_told_apart_and_not_kept(path: Path, form: str) -> None:
    one = raw_header(b"x.txt", b"%011o" % 1) + padded(b"a")
    shard = b"".join(
        long_name(b"%04d" % number + b"n" * 900_000 + b".txt", form) + one for number in range(20)
    )
    with below(56 * MIB):
        samples, failures = parted(read(path, shard + archive([("z.txt", b"last")])))
    assert [sample.key for sample in samples] == ["z"]
    assert {f.error for f in failures} == {"too_large"}
    assert len({f.key for f in failures}) == 20
    assert all(f.key is not None and len(f.key) < 150 for f in failures)
    assert "data.limits.name_bytes = 8192" in failures[0].detail


def test_a_long_extension_fails_its_sample_alone(path: Path) -> None:
    data = archive(
        [("a.txt", b"1"), (f"a.{'é' * 5000}", b"2"), ("b.txt", b"3")], tarfile.GNU_FORMAT
    )
    samples, failures = parted(read(path, data))
    assert [s.key for s in samples] == ["b"]
    assert [(f.key, f.error) for f in failures] == [("a", "too_large")]


def test_gzip_that_becomes_too_much_ends_the_shard(path: Path) -> None:
    bomb = archive([("a.txt", b"1"), ("b.bin", bytes(64 * MIB)), ("c.txt", b"3")])
    packed = gzip.compress(bomb)
    del bomb
    with below(60 * MIB):
        samples, failures = parted(read(path, packed))
    assert [s.key for s in samples] == ["a"]
    assert [(f.key, f.error) for f in failures] == [("b", "too_large"), (None, "too_large")]
    assert "data.limits.expansion = 200" in failures[-1].detail
    assert len(parted(read(path, packed, LimitsConfig(expansion=2000)))[0]) == 3


@pytest.mark.parametrize(
    ("member", "limit"),
    [
        ("jpg", "image_bytes"),
        ("flac", "audio_bytes"),
        ("mp4", "video_bytes"),
        ("txt", "text_bytes"),
        ("json", "json_bytes"),
        ("json.gz", "json_bytes"),
        ("seg.png", "image_bytes"),
        ("npy", "other_bytes"),
    ],
)
def test_each_kind_of_member_has_its_limit(path: Path, member: str, limit: str) -> None:
    data = archive([("a.cls", b"1"), (f"a.{member}", bytes(3000)), ("b.cls", b"2")])
    limits = LimitsConfig.model_validate({limit: 2999})
    samples, failures = parted(read(path, data, limits))
    assert [s.key for s in samples] == ["b"]
    assert f"data.limits.{limit} = 2999" in failures[0].detail
    assert len(parted(read(path, data, LimitsConfig.model_validate({limit: 3000})))[0]) == 2


def test_members_and_keys_are_counted(path: Path) -> None:
    data = archive([(f"a.{number}", b"") for number in range(30)] + [("b.txt", b"1")])
    samples, failures = parted(read(path, data, LimitsConfig(members=29)))
    assert [s.key for s in samples] == ["b"]
    assert "data.limits.members = 29" in failures[0].detail
    data = archive([(f"{number:06d}.txt", b"") for number in range(30)])
    samples, failures = parted(read(path, data, LimitsConfig(keys_bytes=1060)))
    assert len(samples) == 10
    assert [(f.key, f.error) for f in failures] == [(None, "too_large")]
    assert "data.limits.keys_bytes = 1060" in failures[0].detail


def test_global_records_cost_no_member_anything(path: Path) -> None:
    record = b"".join(b"21 comment%04d=12345\n" % number for number in range(4000))
    assert len(record) == 4000 * 21
    shared = raw_header(b"g", b"%011o" % len(record), b"g") + padded(record)
    data = shared + archive([(f"{number}.txt", b"") for number in range(2000)])
    started = time.process_time()
    assert len(parted(read(path, data))[0]) == 2000
    assert time.process_time() - started < 0.5


def test_extensions_of_one_header_are_bounded_together(path: Path) -> None:
    record = b"%d comment=%s\n" % (900_000, b"c" * (900_000 - 16))
    piece = raw_header(b"x", b"%011o" % len(record), b"x") + padded(record)
    _, failures = parted(read(path, piece * 3 + archive([("a.txt", b"1")])))
    assert [f.error for f in failures] == ["bad_header"]


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (nested(65), "json_depth"),
        (nested(600), "json_depth"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "json_depth"),
        (b'{"a": [' + b"{}," * 130_000 + b"{}]}", "json_values"),
    ],
)
def test_json_is_bounded_in_depth_and_values(path: Path, data: bytes, limit: str) -> None:
    (sample,) = parted(read(path, archive([("a.json", data)])))[0]
    with below(24 * MIB), pytest.raises(SampleError, match=limit) as caught:
        sample.metadata()
    assert caught.value.kind == "too_large"


def test_json_within_the_limits_is_read(path: Path) -> None:
    wide = json.dumps({"points": [[x, {"y": x}] for x in range(1000)]}).encode()
    for data in (nested(64), wide, b'{"braces": "' + b"{" * 500 + b'"}'):
        (sample,) = parted(read(path, archive([("a.json", data)])))[0]
        assert sample.metadata() == json.loads(data)
