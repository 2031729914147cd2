"""Numbers that are drawn from names: the same on every machine, in every order, for ever.

All of them are digests of blake2b (RFC 7693), keyed with the seed and personalised with the
purpose: two purposes give independent numbers for the same key, so that, for instance, being held
out says nothing about which models a sample would belong to. What a run has written depends on
these numbers, so they must never change; the tests pin them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 64
_BLOCK_BITS = 8 * _BLOCK_BYTES


def uniform(seed: int, purpose: str, keys: Sequence[str]) -> NDArray[np.float64]:
    """One number in [0, 1) for each key, uniform over keys; 53 random bits each.

    Args:
        seed: Any integer.
        purpose: What the numbers are for; each purpose is independent of the others.
        keys: Any strings, in any order; equal keys get equal numbers.

    Returns:
        (N,) float64.
    """
    words = np.frombuffer(b"".join(_digests(seed, purpose, keys, 8)), dtype=">u8")
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def bits(seed: int, purpose: str, keys: Sequence[str], count: int) -> NDArray[np.bool_]:
    """``count`` fair bits for each key.

    Bit k depends on seed, purpose, key and k alone: a larger ``count`` appends bits and changes
    none.

    Returns:
        (N, count) bool.
    """
    blocks = [
        np.frombuffer(
            b"".join(_digests(seed, f"{purpose}/{block}", keys, _BLOCK_BYTES)), dtype=np.uint8
        ).reshape(len(keys), _BLOCK_BYTES)
        for block in range(-(-count // _BLOCK_BITS))
    ]
    if not blocks:
        return np.zeros((len(keys), 0), dtype=np.bool_)
    used = np.concatenate(blocks, axis=1)[:, : -(-count // 8)]
    return np.unpackbits(used, axis=1, count=count).astype(np.bool_)


def seed_of(*parts: str | int) -> int:
    """A 64-bit seed for a random generator, from what the randomness belongs to.

    Different sequences of parts are encoded differently (``("a", "b")`` is not ``("ab",)``, and
    ``1`` is not ``"1"``), so they collide only by the chance of 2^-64.

    Args:
        parts: Strings and integers (NumPy integers count as integers).

    Raises:
        TypeError: A part is neither.
    """
    hasher = hashlib.blake2b(digest_size=8, person=b"multimem seed_of")
    for part in parts:
        if isinstance(part, str):
            data = _encode(part)
            hasher.update(b"s%d:" % len(data) + data)
        else:
            hasher.update(b"i%d;" % index(part))
    return int.from_bytes(hasher.digest(), "big")


def _digests(seed: int, purpose: str, keys: Sequence[str], size: int) -> Iterator[bytes]:
    base = hashlib.blake2b(
        digest_size=size,
        key=_short(str(index(seed)), hashlib.blake2b.MAX_KEY_SIZE),
        person=_short(purpose, hashlib.blake2b.PERSON_SIZE),
    )
    for key in keys:
        # A copy carries the key and the personalisation: twice as fast as starting anew. What
        # _encode does stands here itself, since this loop is most of what a rule costs.
        hasher: Any = base.copy()
        hasher.update(key.encode("utf-8", "surrogatepass"))
        yield hasher.digest()


def _short(text: str, size: int) -> bytes:
    """A name of any length in at most ``size`` bytes."""
    return hashlib.blake2b(_encode(text), digest_size=size).digest()


def _encode(text: str) -> bytes:
    """UTF-8; lone surrogates, which stand for bytes that were no UTF-8, keep an encoding."""
    return text.encode("utf-8", "surrogatepass")
