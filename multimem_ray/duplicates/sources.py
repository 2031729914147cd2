"""Where the vectors of samples come from: stored embeddings, or shards and how they look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from multimem_ray.config import EmbeddingSet
from multimem_ray.duplicates.looks import LOOKS
from multimem_ray.duplicates.vectors import Floats, Vectors, VectorWriter
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.files import read_blocks
from multimem_ray.embeddings.files import vectors as numbers
from multimem_ray.embeddings.sets import Columns, Piece, find_pieces
from multimem_ray.errors import AbsentError, ConfigError, SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.base import Modality
from multimem_ray.modalities.decoder import decode_one
from multimem_ray.modalities.fields import Fields
from multimem_ray.sample import Sample
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import Storage

_ROWS = 4096
_CHUNK, _THREADS = 64, 2

Advance: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """Vectors of samples, and what there is none of.

    Args:
        unread: Samples, and stretches of shards, that could not be read or decoded.
    """

    vectors: Vectors
    unread: int = 0


def of_embeddings(
    item: EmbeddingSet,
    key: str,
    modalities: Sequence[str],
    storage: Storage,
    folder: Path,
    advance: Advance,
) -> Found:
    """The vectors of one model's stored embeddings; several views of a sample become their mean.

    Args:
        key: Column with the key.
        modalities: Columns; none = all that hold vectors.
        folder: Receives the vectors.
        advance: Told how many rows of how many are read.

    Raises:
        ConfigError: There are no embeddings, or they lack a modality.
        StorageError: A file cannot be read.
    """
    columns = Columns(key, {name: name for name in modalities})
    pieces = find_pieces(item, columns, storage, lambda url: url)
    if not pieces:
        raise ConfigError(f"duplicates: no rows in {item.files or item.keys}")
    names = sorted(set.intersection(*(set(piece.widths) for piece in pieces)))
    shapes = {name: (1, _dim(pieces, name)) for name in names}
    if not shapes:
        raise ConfigError(f"duplicates: {pieces[0].file.url} has no column of vectors")
    writer = VectorWriter(folder, shapes)
    done, rows = 0, sum(piece.rows for piece in pieces)
    wanted = {layout.KEY: key, layout.SHARD: layout.SHARD, **{name: name for name in names}}
    for piece in pieces:
        for first, end in pairwise(piece.starts):
            for block in read_blocks(storage, piece.place(first, end), wanted, _ROWS):
                keys = block.column("key").to_pylist()
                at = block.schema.get_field_index(layout.SHARD)
                shards = block.column(at).to_pylist() if at >= 0 else [None] * len(keys)
                writer.add(keys, shards, {n: _mean_view(piece, block, n) for n in names})
                done += len(keys)
                advance(done, rows)
    return Found(writer.close())


def of_shards(
    spec: str | Sequence[str],
    fields: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]],
    storage: Storage,
    folder: Path,
    advance: Advance,
) -> Found:
    """How the samples of shards look and sound.

    Args:
        spec: Shards, as ``data.shards``.
        fields: Modality to field, of modalities in ``LOOKS``.
        settings: Modality to its settings, as ``modalities`` of a configuration.
        advance: Told how many shards of how many are read.

    Raises:
        ShardNotFoundError: There is no shard.
    """
    seen = _Looks(fields, settings)
    writer = VectorWriter(folder, {name: LOOKS[name][1] for name in fields})
    shards, unread = find_shards(spec, storage).shards, 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, shard in enumerate(shards, 1):
            items = read_shard(shard.url, storage)
            while chunk := list(islice(items, _CHUNK)):
                samples = [item for item in chunk if isinstance(item, Sample)]
                looks = list(pool.map(seen.of, samples))
                kept = [(s.key, v) for s, v in zip(samples, looks, strict=True) if v is not None]
                unread += len(chunk) - len(kept)
                stacked = {name: np.array([v[name] for _, v in kept]) for name in fields}
                writer.add([k for k, _ in kept], [shard.url] * len(kept), stacked)
            advance(done, len(shards))
    return Found(writer.close(), unread)


class _Looks:
    """Vectors of single samples."""

    def __init__(
        self, fields: Mapping[str, str], settings: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._fields = Fields(fields)
        self._modalities: dict[str, Modality] = {
            name: registry.create(name, settings.get(name, {})) for name in fields
        }

    def of(self, sample: Sample) -> dict[str, Floats] | None:
        """Modality to (V, d), zeros where absent; None if a modality cannot be decoded."""
        found = {}
        for name, modality in self._modalities.items():
            look, shape = LOOKS[name]
            found[name] = np.zeros(shape, np.float32)
            try:
                value = self._fields.value(sample, name)
                if value is not None:
                    decoded = decode_one(modality, value)
                    found[name] = look(decoded, modality.spec.sample_rate or 0)
            except AbsentError:
                continue
            except SampleError:
                return None
        return found


def _dim(pieces: Sequence[Piece], name: str) -> int:
    """Numbers of one view, the same in all files."""
    dims = {piece.widths[name] // _views(piece): piece for piece in pieces if piece.widths[name]}
    if len(dims) > 1:
        urls = ", ".join(piece.file.url for piece in list(dims.values())[:2])
        raise ConfigError(f"duplicates: vectors of {name} differ in length: {urls}")
    return next(iter(dims), 1)


def _views(piece: Piece) -> int:
    return piece.array_views or (piece.about.views if piece.about is not None else 1)


def _mean_view(piece: Piece, block: Any, name: str) -> Floats:
    """(B, 1, d), zeros where there is no vector."""
    column = block.column(block.schema.get_field_index(name))
    values, fits = numbers(column, piece.widths[name])
    views = np.where(fits[:, None], values, 0).reshape(len(values), _views(piece), -1)
    length = np.linalg.norm(views, axis=-1, keepdims=True)
    mean: Floats = (views / np.maximum(length, 1e-12)).mean(1, keepdims=True, dtype=np.float32)
    return mean
