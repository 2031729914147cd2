"""Two hundred damaged shards: no crash, and every sample before the damage is scored."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.shard import Scores, score_shard
from multimem_ray.shards.reader import read_shard
from tests.scoring.bank_of import bank_of, some_statistics
from tests.small import small_run, write_shards

Damage = Callable[[bytes, random.Random], bytes]
SHARDS = 200


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def fuzzed_header(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    offset = rng.choice(_headers(data))
    for _ in range(rng.randint(1, 8)):
        damaged[offset + rng.randrange(512)] = rng.randrange(256)
    return bytes(damaged)


def flipped(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 40)):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def swapped(data: bytes, rng: random.Random) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        members = [(m.name, source.extractfile(m).read()) for m in source if m.isfile()]  # type: ignore[union-attr]
    names = [name for name, _ in members]
    for _ in range(4):
        i, j = rng.randrange(len(names)), rng.randrange(len(names))
        names[i], names[j] = names[j], names[i]
    return _tar([(name, content) for name, (_, content) in zip(names, members, strict=True)])


def odd_members(data: bytes, rng: random.Random) -> bytes:
    """Bombs, pickles, and names that lead elsewhere or are no text."""
    bomb = zlib.compress(bytes(50_000_000))
    png = b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", b"\0\0\xff\xff\0\0\xff\xff\x08\2\0\0\0")
    png += _png_chunk(b"IDAT", bomb) + _png_chunk(b"IEND", b"")
    odd = [
        ("/absolute/a.txt", b"x"), ("../../up.txt", b"y"), ("na\udcffme.txt", b"z"),
        ("p.pyd", pickle.dumps(print)), ("p.txt", b"a caption"), ("p.png", png),
        ("q.txt", b"\xff\xfe\x00"), ("q.flac", b"fLaC" + bytes(40)), ("q.json", b"[" * 100_000),
    ]  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        members = [(m.name, source.extractfile(m).read()) for m in source if m.isfile()]  # type: ignore[union-attr]
    at = rng.randrange(0, len(members), 3)
    return _tar([*members[:at], *rng.sample(odd, 5), *members[at:]])


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", errors="surrogateescape") as target:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    return made.getvalue()


def _headers(data: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        return [member.offset for member in source]


@pytest.mark.slow
def test_two_hundred_damaged_shards(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 12, 1)
    run, shards = small_run(tmp_path, "scoring.views=1", "scoring.batch_size=5")
    output = Scores(run, bank_of(run), some_statistics(run))
    good = Path(shards.scored[0].url).read_bytes()
    damages: list[Damage] = [cut, fuzzed_header, flipped, swapped, odd_members]
    kinds = set()
    for number in range(SHARDS):
        rng = random.Random(number)
        path = tmp_path / "shards" / f"damaged-{number:03d}.tar"
        path.write_bytes(damages[number % len(damages)](good, rng))
        source = run.storage.info(str(path))
        found = score_shard(output, source)
        items = list(read_shard(source.url, run.storage))
        told = {*found.scores["index"].to_pylist(), *found.errors["index"].to_pylist()}
        held_out = 0
        for item in items:
            if isinstance(item, Sample) and item.index not in told:
                assert run.held_out_rule.is_held_out([item.key], source.url)[0]
                held_out += 1
            elif isinstance(item, Failure):
                kinds.add(item.error)
        assert held_out == found.receipt.held_out
        assert found.receipt.samples == len(items)
        path.unlink()
    assert {"truncated", "bad_header"} <= kinds
