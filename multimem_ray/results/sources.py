"""What a summary was made from, in one word: a run that did not change is not read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import metadata

from multimem_ray.results.growth import NAME as GROWTH
from multimem_ray.results.table import BLEND_JSON, ScoreTable
from multimem_ray.storage import FileInfo

# Of run.json: what another start of the same run changes.
_PASSING = ("started_at", "versions", "format")


def sources_digest(table: ScoreTable, planted: str | None = None) -> str:
    """Digest of commits, files and documents of a run, from listings and without any row.

    Args:
        table: The run.
        planted: The truth about planted misalignment, if there is one.

    Raises:
        StorageError: Files of a commit are lost.
    """
    digest = hashlib.sha256()
    run = {
        name: value for name, value in table.document("run.json").items() if name not in _PASSING
    }
    digest.update(json.dumps([metadata.version("multimem-ray"), run], sort_keys=True).encode())
    below = len(table.storage.join(table.output, ""))
    for commit in table.commits:
        digest.update(f"{commit.url[below:]}\n".encode())
    for file in _files(table):
        digest.update(f"{file.url[below:]} {file.size} {file.version}\n".encode())
    if planted:
        digest.update(repr(table.storage.info(planted)).encode())
    return digest.hexdigest()[:32]


def _files(table: ScoreTable) -> Iterator[FileInfo]:
    yield from table.score_files
    yield from table.error_files
    yield from table.storage.list(table.storage.join(table.output, "held_out"))
    for name in (GROWTH, BLEND_JSON):
        url = table.storage.join(table.output, name)
        if table.storage.exists(url):
            yield table.storage.info(url)
