"""What a shard is called: the shortest tail of its path that tells it from the others.

Shards move (to another disk, into a bucket), so a sample is not known by a whole path. Of shards
with different file names the file name is enough; of ``cc3m/00000.tar`` and ``cc12m/00000.tar``
the folder belongs to the name, and a run says in ``run.json`` how many parts a name has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from multimem_ray.errors import ConfigError
from multimem_ray.storage import local_path

PARTS = b"multimem_ray.shard_parts"
"""Metadata of a Parquet file that names shards: how many parts of the path tell them apart."""


def located(url: str) -> str:
    """The URL of a shard, or its path from the root, without ``..``; links are left as they are."""
    path = local_path(url)
    return url if path is None else os.path.abspath(path)  # noqa: PTH100 - Path keeps the ".."


def tail(url: str, parts: int) -> str:
    """The last ``parts`` parts of a path or URL; all of it where it has fewer."""
    return "/".join(url.rstrip("/").split("/")[-parts:])


def parts_needed(urls: Iterable[str]) -> int:
    """How many parts at the end of these paths tell them apart; at least 1."""
    different = {url.rstrip("/") for url in urls}
    parts = 1
    while len({tail(url, parts) for url in different}) < len(different):
        parts += 1
    return parts


def require_parts(named: Iterable[str], parts: int, where: str) -> None:
    """Raise ConfigError if a shard is named too briefly to be told from another.

    Args:
        named: Shards as a list names them.
        parts: See :func:`parts_needed`.
        where: The list, for the error.
    """
    for name in named:
        if len(name.strip("/").split("/")) < parts:
            raise ConfigError(
                f"{where}: '{name}' does not say which shard is meant, since several have that "
                f"file name; write the last {parts} parts of its path, such as folder/{name}"
            )
