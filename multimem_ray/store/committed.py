"""Which files of a run's output belong to its commits: one listing, and markers vouch for the rest.

Files that a killed attempt left, or an older version of a shard, have no marker with their name and
are not part of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.markers import Commit, details
from multimem_ray.store.names import shard_id
from multimem_ray.store.partitioning import escaped


def score_files(
    storage: Storage, output: str, commits: Sequence[Commit]
) -> dict[str, list[FileInfo]]:
    """Score files by id of their shard, in the order of the commits.

    Raises:
        StorageError: A commit's files are not all there.
    """
    there = _listed(storage, output, "scores")
    found: dict[str, list[FileInfo]] = {}
    for commit in commits:
        if not commit.rows:
            continue
        files = _of(storage, output, commit, there.get(commit.stem, []), commit.files)
        if len(files) != commit.files:
            raise StorageError(
                f"{commit.url}: {commit.files} files of scores belong to this commit, and "
                f"{len(files)} are there. If the run is going on, try again; else remove this "
                "marker and run the audit again: only this shard is scored anew."
            )
        found[commit.shard_id] = files
    return found


def error_files(
    storage: Storage, output: str, commits: Sequence[Commit], missing: Iterable[str]
) -> dict[str, list[FileInfo]]:
    """Error files by id of their shard: of commits, then of missing shards, never committed."""
    there = _listed(storage, output, "errors")
    of_commits = {
        commit.shard_id: _of(storage, output, commit, there.get(commit.error_stem, []), 1)
        for commit in commits
        if commit.errors
    }
    return of_commits | {shard_id(url): there.get(shard_id(url), [])[-1:] for url in missing}


def in_partition(files: Mapping[str, list[FileInfo]], name: str) -> dict[str, list[FileInfo]]:
    """Those of some files that lie in the partition ``key=value``; the value as it is in the data.

    Raises:
        ConfigError: There is no such partition; names the nearest one.
    """
    key, _, value = name.partition("=")
    folder = f"{key}={escaped(value)}"
    found = {
        shard: [file for file in own if _folder(file) == folder] for shard, own in files.items()
    }
    if files and not any(found.values()):
        there = {unquote(_folder(file)) for own in files.values() for file in own}
        raise ConfigError(f"there is no partition '{name}'{nearest(name, there)}")
    return found


def _folder(file: FileInfo) -> str:
    return file.url.rsplit("/", 2)[-2]


def _listed(storage: Storage, output: str, folder: str) -> dict[str, list[FileInfo]]:
    """Parquet files below a folder of the output by their name without the extension."""
    found: dict[str, list[FileInfo]] = {}
    for info in storage.list(storage.join(output, folder)):
        name, dot, extension = storage.name(info.url).rpartition(".")
        if dot and extension == "parquet":
            found.setdefault(name, []).append(info)
    return found


def _of(
    storage: Storage, output: str, commit: Commit, files: list[FileInfo], count: int
) -> list[FileInfo]:
    """The files of a commit among those with its name.

    By hash, an attempt with another number of partitions may have left one of the same name.
    """
    if len(files) <= count:
        return files
    listed = {storage.join(output, name) for name in details(storage, commit, files=dict)["files"]}
    return [file for file in files if file.url in listed] or files[-count:]
