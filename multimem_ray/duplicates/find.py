"""Near-duplicates of a data set as groups, in a table that ``design.group`` takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimem_ray.design.key_list import hashed
from multimem_ray.duplicates.groups import Effect, Forest
from multimem_ray.duplicates.pairs import near_pairs
from multimem_ray.duplicates.sources import Found
from multimem_ray.duplicates.vectors import Rows, Vectors
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.storage import Storage

THRESHOLD = 0.95
MOST = 1000
_STEPS = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75)
"""Other thresholds that are looked at, in shares of what lies above the threshold."""

_BATCH = 65_536
_ABOUT = b"multimem_ray.duplicates"


@dataclass(frozen=True)
class DuplicateGroups:
    """What was found, and where it lies.

    Args:
        url: The table: ``key``, ``shard`` (where known) and ``group`` of each sample in a group.
        compared: Samples that were compared.
        unread: Samples, and stretches of shards, that could not be.
        modalities: By what they were compared.
        threshold: Similarity from which two samples are a pair.
        groups: Number of groups.
        samples: Samples in groups.
        largest: Samples of the largest group.
        refused: Joins of groups that the upper size forbade.
        effects: What other thresholds would make of the samples, without an upper size.
    """

    url: str
    compared: int
    unread: int
    modalities: Sequence[str]
    threshold: float
    groups: int
    samples: int
    largest: int
    refused: int
    effects: Sequence[Effect]

    def lines(self) -> list[str]:
        """The finding in sentences."""
        largest = f"(largest: {self.largest:,}), by {', '.join(self.modalities)}"
        counted = f"{self.samples:,} of {self.compared:,} samples are in {self.groups:,} groups"
        said = [f"{counted} {largest}"]
        if self.refused:
            said.append(
                f"{self.refused:,} joins were refused, for groups would have been larger than "
                "--max-size: near samples stand in several groups"
            )
        if self.unread:
            said.append(f"{self.unread:,} could not be read or compared, and are in no group")
        return [*said, f"groups: {self.url}", f"next: multimem audit --set design.group={self.url}"]

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def find_groups(
    found: Found, out: str, threshold: float, most: int, storage: Storage, progress: Progress
) -> DuplicateGroups:
    """Compare samples, and write the groups of those that are near each other.

    Args:
        found: Their vectors.
        out: URL of the table; it is there when it is whole.
        most: Samples of the largest group.

    Raises:
        ConfigError: There is nothing to compare, or a number is out of its range.
    """
    vectors = found.vectors
    check_numbers(threshold, most)
    if not (vectors.contents != 0).any():
        raise ConfigError("duplicates: no sample has any of the modalities that are compared")
    forest = Forest(len(vectors), _thresholds(threshold))
    _compare(vectors, forest, progress)
    labels, refused = forest.groups(threshold, most)
    sizes = np.bincount(labels)
    grouped = sizes > 1
    made = DuplicateGroups(
        out,
        int((vectors.contents != 0).sum()),
        found.unread + int((vectors.contents == 0).sum()),
        sorted(vectors.shapes),
        threshold,
        int(grouped.sum()),
        int(sizes[grouped].sum()),
        int(sizes[grouped].max(initial=0)),
        refused,
        forest.effects(),
    )
    _write(vectors, labels, grouped[labels], made, storage)
    return made


def check_numbers(threshold: float, most: int) -> None:
    """Raise ConfigError for numbers out of their range."""
    if not 0.5 <= threshold < 1.0:
        raise ConfigError(f"duplicates: threshold {threshold} is none: give 0.5 <= threshold < 1")
    if most < 2:
        raise ConfigError(f"duplicates: a group of at most {most} is none: give 2 or more")


def work_folder(work: str | None) -> tempfile.TemporaryDirectory[str]:
    """Where vectors lie meanwhile; goes when the block ends."""
    if work is not None:
        Path(work).mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="multimem-", dir=work)


def _thresholds(threshold: float) -> list[float]:
    return sorted({round(threshold + step * (1 - threshold), 4) for step in _STEPS})


def _compare(vectors: Vectors, forest: Forest, progress: Progress) -> None:
    """Fill the forest: equal vectors first, one of which stands for all of them."""
    order = np.argsort(vectors.contents, kind="stable")
    order = order[vectors.contents[order] != 0]
    same = vectors.contents[order]
    new = np.append(True, same[1:] != same[:-1])
    first: Rows = order[new]
    counts = np.diff(np.append(np.flatnonzero(new), len(order)))
    copies = order[~new]
    originals = first[np.cumsum(new) - 1][~new]
    # The k-th copy makes a pair with each of those before it.
    before = (np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1])[~new]
    forest.add(originals, copies, np.ones(len(copies), np.float32), before)
    rows = np.sort(first)
    weights: NDArray[np.int64] = np.ones(len(vectors), np.int64)
    weights[first] = counts
    floor = float(forest.thresholds[0])
    progress.say(f"comparing {len(rows)} samples" + _copies_words(len(copies)))
    for one, other, near in near_pairs(vectors, rows, floor):
        forest.add(one, other, near, weights[one] * weights[other])


def _copies_words(copies: int) -> str:
    return f"; {copies} more are equal to one of them" if copies else ""


def _write(
    vectors: Vectors,
    labels: NDArray[np.int64],
    grouped: NDArray[np.bool_],
    made: DuplicateGroups,
    storage: Storage,
) -> None:
    """The table, batch by batch; a group is called after its first sample."""
    names: dict[int, str] = {}
    by_shard = all(batch["shard"].null_count == 0 for batch in vectors.batches(_BATCH))
    kept = ["key", *(["shard"] if by_shard else []), "group"]
    about = {_ABOUT: json.dumps(made.as_json()).encode()}
    schema = pa.schema([(name, pa.string()) for name in kept], metadata=about)
    at = 0
    with storage.create(made.url) as stream, pq.ParquetWriter(stream, schema) as writer:
        for batch in vectors.batches(_BATCH):
            rows = np.flatnonzero(grouped[at : at + batch.num_rows])
            keys = batch["key"].take(pa.array(rows)).to_pylist()
            shards = batch["shard"].take(pa.array(rows)).to_pylist()
            groups = []
            for key, shard, label in zip(keys, shards, labels[at + rows].tolist(), strict=True):
                if label not in names:
                    digest = hashed([key], [shard] if by_shard else None)[0]
                    names[label] = f"near-{int(digest):016x}"
                groups.append(names[label])
            columns = {"key": keys, "shard": shards, "group": groups}
            writer.write_table(pa.table([columns[name] for name in kept], schema))
            at += batch.num_rows
