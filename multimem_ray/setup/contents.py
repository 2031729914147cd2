"""What data a run is of: its shards by size and version, kept beside ``run.json``.

    shards.parquet    url, size, version (ETag in S3, time of change and size on a disk)

Models are trained on it, the held-out set is chosen from it and it is scored: a shard that is
replaced under its name would be scored as if the models had seen what it holds now. Size and
version come with the listing, so that asking costs nothing however large the shards are.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.errors import ResumeError
from multimem_ray.run import Run, Shards
from multimem_ray.storage import FileInfo
from multimem_ray.store.tables import SHARDS, read_shards

_MOST_NAMED = 3


def keep_contents(run: Run, shards: Shards) -> None:
    """Write down what the shards are, or refuse shards that were replaced since.

    Raises:
        ResumeError: Something was made of a shard that is another one now.
    """
    present = [*shards.scored, *shards.held_out]
    known = {shard.url: _of(shard) for shard in read_shards(run.storage, run.output)}
    changed = [s for s in present if known.get(s.url, _of(s)) != _of(s)]
    if changed and _has_begun(run):
        raise ResumeError(_refusal(run, changed, known))
    if known and not changed and len(known) == len(present):
        return
    columns = {name: [getattr(s, name) for s in present] for name in ("url", "size", "version")}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    run.storage.write_atomic(run.path(SHARDS), buffer.getvalue())


def _of(shard: FileInfo) -> tuple[int, str]:
    return shard.size, shard.version


def _has_begun(run: Run) -> bool:
    """Whether anything was made of the shards: models, or the choice of what is held out."""
    chosen = run.storage.exists(run.path("held_out", "keys.parquet"))
    return chosen or bool(run.storage.folders(run.path("models")))


def _refusal(run: Run, changed: list[FileInfo], known: dict[str, tuple[int, str]]) -> str:
    named = ", ".join(
        f"{shard.url} ({known[shard.url][0]} bytes then, {shard.size} now)"
        if known[shard.url][0] != shard.size
        else f"{shard.url} (changed since, of the same size)"
        for shard in changed[:_MOST_NAMED]
    )
    more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
    return (
        f"{run.output}: the models and the held-out set of this run know other content of {named}"
        f"{more}. Put the old files back with their times, or use another output folder."
    )
