"""Where stored embeddings lie, and what their columns are called.

    <output>/embeddings/
      embeddings.json                                  what was embedded, by which design; last
      model=<id>/partition=<nnn>/<shard>.parquet       one file per shard and model
      model=<id>/membership.json                       what the model trained on
      errors/  commits/                                as those of scoring

Columns of such a file: ``key, shard, index, label, group, held_out``, and one for each modality:
a list of V * d float32, view after view, each of length 1; null where the sample lacks the
modality. ``label`` and ``group`` are null where the run has none. The metadata says the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

FOLDER = "embeddings"
MANIFEST = "embeddings.json"
KEY, SHARD, INDEX, LABEL, GROUP, HELD_OUT = "key", "shard", "index", "label", "group", "held_out"
ABOUT = b"multimem_ray.embeddings"

IDENTITY: Mapping[str, pa.DataType] = {
    KEY: pa.string(),
    SHARD: pa.string(),
    INDEX: pa.int64(),
    LABEL: pa.string(),
    GROUP: pa.string(),
    HELD_OUT: pa.bool_(),
}


@dataclass(frozen=True)
class About:
    """What the metadata of a file says.

    Args:
        model: Name of the model.
        views: Views V of each sample.
        dim: Numbers of one view.
        modalities: Columns with embeddings.
        shard: The shard that the samples come from.
        keys: Digest of the keys, see :class:`KeyDigest`: files of several models with the same
            one stand row by row beside each other.
        fingerprint: Of the run.
    """

    model: str
    views: int
    dim: int
    modalities: Sequence[str]
    shard: str
    keys: str
    fingerprint: str

    def metadata(self) -> dict[bytes, bytes]:
        """As metadata of a schema."""
        return {ABOUT: json.dumps(asdict(self)).encode()}

    @classmethod
    def of(cls, schema: pa.Schema) -> About | None:
        """What a schema says, or None for files that are not ours.

        Raises:
            ValueError: It says something else than ours do.
        """
        data = (schema.metadata or {}).get(ABOUT)
        if data is None:
            return None
        try:
            return cls(**json.loads(data))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"what it says of itself is damaged ({error})") from error


class KeyDigest:
    """Digest of a sequence of keys, however they come in batches."""

    def __init__(self) -> None:
        self._lengths, self._bytes = (
            hashlib.blake2b(digest_size=16),
            hashlib.blake2b(digest_size=16),
        )
        self.rows = 0

    def add(self, keys: pa.Array) -> None:
        """The next keys, an array of ``large_string``."""
        self.rows += len(keys)
        starts, data = string_buffers(keys)
        self._lengths.update((starts[1:] - starts[:-1]).astype("<i4").tobytes())
        self._bytes.update(data[starts[0] : starts[-1]] if len(keys) else b"")

    def hexdigest(self) -> str:
        """Of what was added so far."""
        return hashlib.blake2b(
            self._lengths.digest() + self._bytes.digest(), digest_size=16
        ).hexdigest()


def key_digest(keys: Iterable[pa.Array]) -> str:
    """Digest of keys in batches."""
    found = KeyDigest()
    for batch in keys:
        found.add(batch)
    return found.hexdigest()


def string_buffers(keys: pa.Array) -> tuple[Any, memoryview]:
    """Offsets (N + 1, int64) of an array of ``large_string``, and the bytes they point into."""
    import numpy as np

    _, offsets, data = keys.buffers()
    starts = np.frombuffer(offsets, "<i8")[keys.offset : keys.offset + len(keys) + 1]
    return starts, memoryview(data if data is not None else b"")
