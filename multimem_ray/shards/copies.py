"""Where copies of shards go: under their own names, never onto themselves.

A name is the shortest tail of the path that tells the shards apart, folders included, so that
what is known of a sample by shard and key holds for its copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from multimem_ray.design.shard_names import located, parts_needed, tail
from multimem_ray.errors import ConfigError
from multimem_ray.storage import FileInfo, Storage, local_path


def copies(shards: Sequence[FileInfo], out: str, storage: Storage) -> list[str]:
    """A URL in ``out`` for each shard, under its own name.

    Raises:
        ConfigError: ``out`` is where a shard is, or two shards differ in their suffix alone.
    """
    places = [located(shard.url) for shard in shards]
    parts = parts_needed(places)
    names = []
    for place in places:
        name = tail(place, parts)
        for suffix in (".tar.gz", ".tgz", ".tar"):
            name = name.removesuffix(suffix)
        names.append(f"{name}.tar")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"two shards would be copied to {twice[0]}; rename one of them")
    urls = [storage.join(out, name) for name in names]
    for shard, url in zip(shards, urls, strict=True):
        if _place(shard.url) == _place(url):
            raise ConfigError(f"out: {out} is where {shard.url} is; write the copy elsewhere")
    return urls


def _place(url: str) -> str:
    path = local_path(url)
    return url if path is None else str(path.resolve())
