"""The samples that were picked by hand, in a file that ``reshard --remove`` takes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.arrow_files import read_parquet
from multimem_ray.design.key_list import texts
from multimem_ray.design.shard_names import PARTS
from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage

MOST = 100_000  # samples: the file is written anew at each tick
_SCHEMA = pa.schema([("key", pa.string()), ("shard", pa.string())])

Named = tuple[str, str]
"""Shard and key."""


class Selection:
    """Samples in the order in which they were picked; those of an earlier visit are kept.

    Args:
        url: The Parquet file.
        storage: Where it lies.
        shard_parts: How many parts of their paths tell the run's shards apart.

    Raises:
        ConfigError: There is a file of that name that is no list of samples.
        StorageError: It cannot be read.
    """

    def __init__(self, url: str, storage: Storage, shard_parts: int) -> None:
        self.url, self._storage, self._lock = url, storage, threading.Lock()
        self._schema = _SCHEMA.with_metadata({PARTS: str(shard_parts).encode()})
        self._samples: dict[Named, None] = {}
        if storage.exists(url):
            table = read_parquet(storage.read_bytes(url), url)
            lacking = [name for name in ("key", "shard") if name not in table.column_names]
            if lacking:
                raise ConfigError(f"{url}: no column '{lacking[0]}'; name another --selection")
            shards, keys = (texts(table[n], f"{url}: column '{n}'") for n in ("shard", "key"))
            self._samples = dict.fromkeys(zip(shards, keys, strict=True))

    def __len__(self) -> int:
        return len(self._samples)

    def __contains__(self, sample: Named) -> bool:
        return sample in self._samples

    @property
    def samples(self) -> list[Named]:
        """Shard and key of each."""
        return list(self._samples)

    def change(self, samples: Iterable[Named], picked: bool) -> None:
        """Add samples, or take them away, and write the file.

        Raises:
            ConfigError: There would be more than ``MOST``.
            StorageError: The file cannot be written; nothing is changed then.
        """
        with self._lock:
            changed = dict(self._samples)
            for sample in samples:
                if picked:
                    changed[sample] = None
                else:
                    changed.pop(sample, None)
            if len(changed) > MOST:
                raise ConfigError(f"more than {MOST:,} picked; `multimem select` lists by a rule")
            columns = [[key for _, key in changed], [shard for shard, _ in changed]]
            buffer = BytesIO()
            table = pa.table([pa.array(c, pa.string()) for c in columns], schema=self._schema)
            pq.write_table(table, buffer, compression="zstd")
            self._storage.write_atomic(self.url, buffer.getvalue())
            self._samples = changed
