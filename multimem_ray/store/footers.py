"""Whether files of rows are those that a commit's marker vouches for, told by their footers.

A footer names the run that wrote the file, the number of its rows, and the least and greatest value
of each column. So no row is read to see that a file of another run, of another shard, or of an
earlier attempt lies where a committed one should.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq

from multimem_ray.errors import StorageError
from multimem_ray.store.markers import Commit, way_out
from multimem_ray.store.names import shard_id

RUN = b"multimem_ray"
"""Key of the metadata under which a file has the fingerprint of its run."""


class FooterCheck:
    """Checks files of commits as their footers are read, in any order and by any thread.

    Args:
        commits: What is committed.
        files: URLs of all files of each commit, by the id of its shard.
        rows: Rows of each commit, by the id of its shard.
    """

    def __init__(
        self,
        commits: Sequence[Commit],
        files: Mapping[str, Sequence[str]],
        rows: Mapping[str, int],
    ) -> None:
        self._files, self._rows = files, rows
        self._commits = {url: c for c in commits for url in files.get(c.shard_id, ())}
        self._counted: dict[str, int] = {}

    def known(self, url: str) -> bool:
        """Whether this file needs no further look."""
        return url in self._counted or url not in self._commits

    def require(self, url: str, footer: pq.FileMetaData) -> None:
        """Raise StorageError unless a file is what its marker says; what no commit has passes.

        Of several files of one commit, the last to be looked at tells whether the sum is right.
        """
        if self.known(url):
            return
        commit = self._commits[url]
        reason = _reason(footer, commit)
        if not reason:
            self._counted[url] = footer.num_rows
            urls = self._files[commit.shard_id]
            counted = [self._counted[own] for own in urls if own in self._counted]
            promised = self._rows[commit.shard_id]
            if sum(counted) > promised or (len(counted) == len(urls) and sum(counted) < promised):
                reason = f"{sum(counted)} rows where {promised} were committed"
        if reason:
            raise StorageError(f"{url}: {reason}; {way_out(commit)}")


def _reason(footer: pq.FileMetaData, commit: Commit) -> str:
    """Why a file is not of this commit; empty if nothing speaks against it."""
    wrote = (footer.metadata or {}).get(RUN, b"").decode("utf-8", "replace")
    if wrote != commit.run:
        return f"not of this run: written by {f'run {wrote}' if wrote else 'something else'}"
    foreign = next((s for s in _shards(footer) if shard_id(s) != commit.shard_id), None)
    return "" if foreign is None else f"holds rows of another shard, {foreign}"


def _shards(footer: pq.FileMetaData) -> set[str]:
    """Least and greatest shard of each row group, where a footer tells them."""
    names = footer.schema.names
    if "shard" not in names:
        return set()
    place = names.index("shard")
    shards: set[str] = set()
    for group in range(footer.num_row_groups):
        told = footer.row_group(group).column(place).statistics
        if told is not None and told.has_min_max:
            shards |= {str(told.min), str(told.max)}
    return shards
