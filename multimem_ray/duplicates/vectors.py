"""Vectors of all samples, by modality, in files: memory holds those that are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.int64]

_SAMPLE = 50_000
_FEWEST = 100
"""Samples from which a mean tells what they have in common."""

_NOTHING = bytes(8)
_LEAST_SPREAD = 1e-3  # of numbers of vectors of length 1

_IDENTITY = pa.schema([("key", pa.large_string()), ("shard", pa.large_string())])


class VectorWriter:
    """Writes vectors block by block.

    Args:
        folder: Receives the files.
        shapes: Modality to (V, d): views of a sample, of which the first shows it whole.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, int]]) -> None:
        self._folder, self._shapes = folder, dict(shapes)
        self._files: dict[str, BinaryIO] = {n: _path(folder, n).open("wb") for n in shapes}
        self._who = pq.ParquetWriter(folder / "who.parquet", _IDENTITY)
        self._contents: list[bytes] = []

    def add(
        self, keys: Sequence[str], shards: Sequence[str | None], vectors: Mapping[str, Any]
    ) -> None:
        """The next samples.

        Args:
            vectors: Modality to (B, V, d); zeros where a sample lacks it.
        """
        if not len(keys):
            return
        self._who.write_table(pa.table([list(keys), list(shards)], _IDENTITY))
        halves = []
        for name, file in self._files.items():
            values = _unit(np.asarray(vectors[name], np.float32)).astype(np.float16)
            file.write(values.tobytes())
            halves.append(values[:, 0])
        for row in np.concatenate(halves, 1):
            digest = hashlib.blake2b(row.tobytes(), digest_size=8).digest()
            self._contents.append(digest if row.any() else _NOTHING)

    def close(self) -> Vectors:
        """What was written."""
        for file in self._files.values():
            file.close()
        self._who.close()
        contents = np.frombuffer(b"".join(self._contents), np.uint64)
        return Vectors(self._folder, self._shapes, contents)


@dataclass(frozen=True)
class Vectors:
    """Vectors of N samples in files.

    Args:
        folder: Where they lie.
        shapes: Modality to (V, d).
        contents: (N,) hashes: equal where all vectors are, 0 where a sample has none.
    """

    folder: Path
    shapes: Mapping[str, tuple[int, int]]
    contents: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.contents)

    @cached_property
    def width(self) -> int:
        """Numbers of :meth:`whole`."""
        return sum(d for _, d in self.shapes.values())

    def whole(self, rows: Rows) -> Floats:
        """(B, D) of length 1: the whole view of all modalities beside each other.

        Their inner product is the mean of the modalities' cosines where both have all of them,
        and less where one lacks what the other has: it chooses cells, and decides nothing.
        """
        parts = [self.views(name, rows, 1)[:, 0] for name in self.shapes]
        return _unit(np.concatenate(parts, 1))

    def views(self, name: str, rows: Rows, most: int | None = None) -> Floats:
        """(B, V, d) of length 1, zeros where absent.

        What all samples have in common is taken away, and numbers that vary much are made smaller.
        """
        stored = self._files[name][rows, : most or self.shapes[name][0]].astype(np.float32)
        here = stored.any(-1, keepdims=True)
        mean, scale = self._usual[name]
        return _unit(np.where(here, (stored - mean) * scale, 0.0))

    def batches(self, size: int) -> Any:
        """Record batches with key and shard."""
        from multimem_ray.arrow_files import ParquetFile

        path = str(self.folder / "who.parquet")
        with ParquetFile(path, path) as file:
            yield from file.iter_batches(size)

    @cached_property
    def _files(self) -> dict[str, Any]:
        return {
            name: np.memmap(_path(self.folder, name), np.float16, "r", shape=(len(self), v, d))
            for name, (v, d) in self.shapes.items()
        }

    @cached_property
    def _usual(self) -> dict[str, tuple[Floats, Floats]]:
        """Mean and scale of each number, from evenly spaced samples: embeddings lie in a cone.

        The scale is the inverse root of the standard deviation: halfway to whitening, by which
        the fine is worth more beside the coarse, and noise not as much as either.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SAMPLE)).astype(np.int64))
        usual = {}
        for name, (_, dim) in self.shapes.items():
            values = self._files[name][rows, 0].astype(np.float32)
            values = values[values.any(-1)]
            mean, scale = np.zeros(dim, np.float32), np.ones(dim, np.float32)
            if len(values) >= _FEWEST:
                mean, scale = values.mean(0), np.maximum(values.std(0), _LEAST_SPREAD) ** -0.5
            usual[name] = mean, scale.astype(np.float32)
        return usual


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.f16"


def _unit(values: Floats) -> Floats:
    """Of length 1; zeros, and what is not finite, are zeros."""
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    fit = np.isfinite(length) & (length > 1e-6)
    unit: Floats = np.where(fit, values / np.where(fit, length, 1), 0).astype(np.float32)
    return unit
