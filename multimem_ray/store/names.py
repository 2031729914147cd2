"""Names on disk: each follows from what it stands for, so that a repeated attempt overwrites.

scores/partition=<nnn>/<shard>.parquet                           by hash of the shard
scores/partition=<nnn>/<shard>.<run>.e<epoch>.parquet            the same, from epoch 2 on
scores/<field>=<value>/<shard>.<run>.<source>.<digest>.parquet   by a field of the samples
commits/<shard>.<run>.<source>.<sums>.json
parts/<run>/<shard>.<source>/<first>-<end>.arrow
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from multimem_ray.storage import FileInfo


def shard_id(url: str) -> str:
    """A file name for what comes from a shard: readable, and unique by a hash of the URL."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", url.rstrip("/").rsplit("/", 1)[-1])
    stem = stem.removesuffix(".tar")[:80]
    return f"{stem}-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"


def partition_of(url: str, partitions: int) -> str:
    """The hive partition that a shard's files lie in, such as ``partition=007``."""
    number = int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest()) % partitions
    return f"partition={number:03d}"


def source_version(shard: FileInfo) -> str:
    """Eight hex digits that change when the shard's size or version (ETag, time) does."""
    text = f"{shard.size} {shard.version}"
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def score_stem(shard_id: str, run: str, source: str, digest: str, epoch: int = 1) -> str:
    """Name of a score file without the extension.

    Args:
        digest: Of the rows; empty where one file holds them all.
        epoch: Of the writer; see :mod:`multimem_ray.fence`.
    """
    if not digest:
        return shard_stem(shard_id, run, epoch)
    stem = f"{shard_id}.{run}.{source}.{digest}"
    return f"{stem}.e{epoch}" if epoch > 1 else stem


def shard_stem(shard_id: str, run: str, epoch: int) -> str:
    """Name, without the extension, of a file that holds all rows of a shard."""
    return f"{shard_id}.{run}.e{epoch}" if epoch > 1 else shard_id


def epoch_of(stem: str) -> int:
    """The epoch in the name of a file without its extension."""
    found = re.search(r"\.e(\d+)$", stem)
    return int(found[1]) if found else 1


def means_file(held_out: Mapping[str, Any]) -> str:
    """The name of the mean vectors beside a ``held_out.json`` of this content."""
    name = str(held_out.get("means"))
    return name if re.fullmatch(r"means\.e\d+\.safetensors", name) else "means.safetensors"


def marker_name(
    shard_id: str,
    run: str,
    source: str,
    rows: int,
    held_out: int,
    errors: int,
    digest: str = "",
    files: int = 1,
    epoch: int = 1,
) -> str:
    """The file name of a marker; see :class:`multimem_ray.store.markers.Commit` for the parts."""
    sums = f"{rows}-{held_out}-{errors}" + (f"-{digest}-{files}" if digest else "")
    sums += f"-e{epoch}" if epoch > 1 else ""
    return f"{shard_id}.{run}.{source}.{sums}.json"


def part_name(first: int, end: int, suffix: str) -> str:
    """The file name of what became of the positions ``first`` to ``end`` (exclusive)."""
    return f"{first:09d}-{end:09d}{suffix}"


def part_range(name: str, suffix: str) -> tuple[int, int] | None:
    """The positions in a part's name; None for a file that is no part."""
    span = re.fullmatch(rf"(\d+)-(\d+){re.escape(suffix)}", name)
    return None if span is None else (int(span[1]), int(span[2]))
