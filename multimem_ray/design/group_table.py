"""Groups of samples that a rule of the sample alone cannot tell, such as near-duplicates.

A table names the group of each sample that shares one; who is not in it belongs with nothing but
its exact copies. It is kept as sorted 64-bit hashes and numbers: twelve bytes a sample.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from multimem_ray.arrow_files import READ_ERRORS, ParquetFile
from multimem_ray.design.key_list import EXAMPLES, OF_SHARD, Hashes, KeyList, hashed, texts
from multimem_ray.design.shard_names import require_parts, tail
from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage

SUFFIX = ".parquet"


@dataclass(frozen=True)
class GroupTable:
    """Who belongs together.

    Attributes:
        hashes: (N,) sorted, unique; of keys, or of file names of shards and keys.
        codes: (N,) number of each sample's group.
        names: Of the groups.
        by_shard: Whether the shard is part of what a sample is known by.
        shards: How many rows there are of each shard, by name; empty without ``by_shard``.
        parts: Parts of a shard's path that are its name.
        examples: A few of its keys, for people.
    """

    hashes: Hashes
    codes: NDArray[np.int32]
    names: Sequence[str]
    by_shard: bool
    shards: Mapping[str, int]
    parts: int = 1
    examples: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def listed(self) -> KeyList:
        """The samples that it names."""
        return KeyList(self.hashes, self.by_shard, self.parts, self.examples)

    def group(self, key: str, shard: str) -> str | None:
        """The group of a sample; None if the table does not name it.

        Args:
            shard: URL or name of the shard that it stands in.
        """
        if not len(self.hashes):
            return None
        value = hashed([key], [tail(shard, self.parts)] if self.by_shard else None)[0]
        place = min(int(np.searchsorted(self.hashes, value)), len(self.hashes) - 1)
        return self.names[self.codes[place]] if self.hashes[place] == value else None

    def digest(self) -> str:
        """Sixteen hex digits that tell one table from another."""
        found = hashlib.blake2b(self.hashes.tobytes() + self.codes.tobytes(), digest_size=8)
        for name in self.names:
            found.update(f"{len(name)}:{name}".encode("utf-8", "surrogatepass"))
        found.update(bytes([self.by_shard]))
        return found.hexdigest()


def read_groups(url: str, storage: Storage, parts: int = 1) -> GroupTable:
    """Read a table with the columns ``key`` and ``group``, and ``shard`` where keys repeat.

    Rows without a group say nothing.

    Args:
        parts: Parts of a shard's path that tell the shards of the run apart.

    Raises:
        ConfigError: It is no such table, puts a sample into two groups, or does not say which of
            several shards of one file name it means.
        StorageError: It cannot be read.
    """
    hashes, codes = list[Hashes](), list[NDArray[np.int32]]()
    examples = list[str]()
    numbers: dict[str, int] = {}
    shards: Counter[str] = Counter()
    if not storage.exists(url):
        raise ConfigError(f"design.group: {url} is not there: correct the path")
    try:
        with storage.open(url) as stream, ParquetFile(stream, url) as file:
            names = set(file.schema_arrow.names)
            if not {"key", "group"} <= names:
                raise ConfigError(f"design.group: {url} needs the columns 'key' and 'group'")
            by_shard = "shard" in names
            columns = ["key", "group", *(["shard"] if by_shard else [])]
            for rows in file.iter_batches(columns=columns):
                batch = rows.filter(_grouped(rows["group"]))
                keys = texts(batch["key"], f"design.group: {url}: column 'key'")
                few, of = keys[: EXAMPLES - len(examples)], list[str]()
                if by_shard:
                    of = texts(batch["shard"], f"design.group: {url}: column 'shard'")
                    require_parts(set(of), parts, f"design.group: {url}")
                    of = [tail(shard, parts) for shard in of]
                shards.update(of)
                named = zip(of, few, strict=False)
                examples += [f"{n}{OF_SHARD}{key}" for n, key in named] if by_shard else few
                hashes.append(hashed(keys, of if by_shard else None))
                groups = (str(group) for group in batch["group"].to_pylist())
                own = [numbers.setdefault(group, len(numbers)) for group in groups]
                codes.append(np.array(own, np.int32))
    except READ_ERRORS as error:
        raise ConfigError(f"design.group: {url} cannot be read as Parquet: {error}") from error
    every = np.concatenate([np.empty(0, np.uint64), *hashes])
    order = np.argsort(every, kind="stable")
    every, of_each = every[order], np.concatenate([np.empty(0, np.int32), *codes])[order]
    first = np.append(True, every[1:] != every[:-1])[: len(every)]
    if (of_each[1:] != of_each[:-1])[~first[1:]].any():
        known = "shard and key" if by_shard else "key; add a column 'shard' where keys repeat"
        raise ConfigError(f"design.group: {url} puts a sample into two groups, by {known}")
    groups_of = list(numbers)
    return GroupTable(
        every[first], of_each[first], groups_of, by_shard, shards, parts, tuple(examples)
    )


def _grouped(groups: pa.Array) -> pa.Array:
    """Where there is a group: no null, no NaN, no empty text, which are no name."""
    if pa.types.is_floating(groups.type):
        return pc.fill_null(pc.invert(pc.is_nan(groups)), False)
    return pc.fill_null(pc.not_equal(groups.cast(pa.string()), ""), False)


def is_table(group: str | None) -> bool:
    """Whether ``design.group`` names a table."""
    return group is not None and group.endswith(SUFFIX)
