"""Bytes that nearly are a file: a seed after some edits, a function of a number alone."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

_BLOCK = 512
_ODD = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_TOKENS = (b"\0", b"\xff" * 4, b"{", b"]", b'"', b"\n", b"\xff\xfee\0", b"999999999")


def mutated(seeds: Sequence[bytes], number: int) -> bytes:
    """The seed itself for the first numbers, then what one to eight edits make of one."""
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(number)
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        rng.choice(_EDITS)(data, rng, seeds)
    # Else hardly any damage to a tar would be seen by what stands behind its checksums.
    return _with_checksums(data) if rng.random() < 0.5 else bytes(data)


def _at(data: bytearray, rng: random.Random) -> int:
    # What decides stands at the beginning, or at the end, more often than in between.
    place = rng.choice((rng.random(), rng.random() ** 4, 1 - rng.random() ** 4))
    return min(len(data), int(place * len(data)))


def _flip(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del seeds
    at = _at(data, rng)
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _number(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del seeds
    form = rng.choice(("B", "<H", ">H", "<I", ">I"))
    value = rng.choice(_ODD) % (1 << 8 * struct.calcsize(form))
    at = _at(data, rng)
    data[at : at + struct.calcsize(form)] = struct.pack(form, value)


def _cut(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del seeds
    at = _at(data, rng)
    del data[at : at + rng.choice((1, 4, 100, _BLOCK, len(data)))]


def _repeat(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del seeds
    at = _at(data, rng)
    data[at:at] = data[at : at + rng.choice((1, 16, _BLOCK))] * rng.choice((1, 2, 50))


def _insert(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del seeds
    at = _at(data, rng)
    data[at:at] = rng.choice((*_TOKENS, rng.randbytes(rng.randrange(1, 40))))


def _splice(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    at = _at(data, rng)
    data[at:] = other[int(rng.random() * len(other)) :]


_EDITS = (_flip, _flip, _number, _number, _cut, _repeat, _insert, _splice)


def _with_checksums(data: bytearray) -> bytes:
    for at in range(0, len(data) - _BLOCK + 1, _BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + _BLOCK])
    return bytes(data)
