"""Where copies of shards go: under their own names, never onto themselves."""

from __future__ import annotations

from collections.abc import Sequence

from multimem_ray.errors import ConfigError
from multimem_ray.storage import FileInfo, Storage, local_path


def copies(shards: Sequence[FileInfo], out: str, storage: Storage) -> list[str]:
    """A URL in ``out`` for each shard, under its own name if no two have the same.

    Raises:
        ConfigError: ``out`` is where a shard is.
    """
    names = []
    for shard in shards:
        name = storage.name(shard.url)
        for suffix in (".tar.gz", ".tgz", ".tar"):
            name = name.removesuffix(suffix)
        names.append(f"{name}.tar")
    if len(set(names)) < len(names):
        names = [f"{number:06d}-{name}" for number, name in enumerate(names)]
    urls = [storage.join(out, name) for name in names]
    for shard, url in zip(shards, urls, strict=True):
        if _place(shard.url) == _place(url):
            raise ConfigError(f"out: {out} is where {shard.url} is; write the copy elsewhere")
    return urls


def _place(url: str) -> str:
    path = local_path(url)
    return url if path is None else str(path.resolve())
