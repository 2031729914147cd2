"""One function for every form in which a run's findings are handed on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from multimem_ray.errors import ConfigError
from multimem_ray.export.card import Findings, card, front_matter
from multimem_ray.export.croissant import croissant
from multimem_ray.export.fiftyone import write_fiftyone
from multimem_ray.export.tables import Asked, TableFile, write_table
from multimem_ray.progress import Progress
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import load_run
from multimem_ray.storage import Storage

To: TypeAlias = Literal["csv", "json", "parquet", "card", "croissant", "huggingface", "fiftyone"]
FORMS: tuple[To, ...] = get_args(To)
FOLDER = "exports"
_NAMES = {"csv": "scores.csv", "json": "scores.jsonl", "parquet": "scores.parquet"}
_NAMES |= {"card": "data-card.md"}
_SHOWN = 1_000  # samples for FiftyOne, which wants a file for each


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        to: The form.
        url: File or folder.
        rows: Samples in it; None of a card.
        notes: What was left out, and why.
    """

    to: str
    url: str
    rows: int | None = None
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"to": self.to, "url": self.url, "rows": self.rows, "notes": list(self.notes)}


def export(
    output: str | os.PathLike[str],
    to: To,
    out: str | os.PathLike[str] | None = None,
    *,
    columns: Sequence[str] = (),
    fields: Sequence[str] = (),
    top: int | None = None,
    name: str = "memorization-scores",
    license: str | None = None,  # noqa: A002 - as data cards call it
    url: str | None = None,
    published: str | None = None,
    storage: Storage | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write what a run found in another form.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        to: ``csv``, ``json`` (a line for each sample), ``parquet``, ``card`` (Markdown),
            ``croissant`` (a folder: Parquet with its metadata), ``huggingface`` (a folder that
            ``datasets`` opens) or ``fiftyone`` (a folder with media).
        out: File or folder; by default in ``exports/`` of the run.
        columns: Of the scores; all by default.
        fields: JSON fields of the samples beside them, such as ``json.url``.
        top: So many samples, the most memorized; all by default, 1,000 for FiftyOne.
        name: Of the data set that is handed on.
        license: Of it, as metadata tell.
        url: Of it, likewise.
        published: Day on which it is, likewise, such as 2026-11-26.
        storage: How to reach run and shards.
        progress: Told while shards have to be read.

    Raises:
        ConfigError: There is no such form or column, or nothing is scored.
        StorageError: Something cannot be read or written.
    """
    if to not in FORMS:
        raise ConfigError(f"export: '{to}' is no form; write one of {', '.join(FORMS)}")
    storage, output = storage or Storage(), os.fspath(output)
    load_run(output, storage)
    table = ScoreTable(output, storage)
    if not table.score_files:
        raise ConfigError(f"{output}: nothing is scored yet; run `multimem audit` first")
    place = os.fspath(out) if out else storage.join(output, FOLDER, _NAMES.get(to, to))
    asked = Asked(columns, fields, top)
    if to in {"csv", "json", "parquet"}:
        return _told(to, place, write_table(table, place, to, asked, progress))
    if to == "fiftyone":
        return _fiftyone(table, place, top or _SHOWN, name)
    found = Findings(table)
    if to == "card":
        storage.write_atomic(place, card(found).encode())
        return Export(to, place)
    about = {"name": name, "license": license, "url": url, "datePublished": published}
    if to == "huggingface":
        file = storage.join(place, "data", "scores-00000.parquet")
        made = write_table(table, file, "parquet", asked, progress)
        head = {"pretty_name": name, **({"license": license} if license else {})}
        text = front_matter(found, head) + f"\n# {name}\n\n" + card(found)
        storage.write_atomic(storage.join(place, "README.md"), text.encode())
    else:
        file = storage.join(place, "scores.parquet")
        made = write_table(table, file, "parquet", asked, progress)
        document = json.dumps(croissant(found, made, about), indent=2, allow_nan=False)
        storage.write_atomic(storage.join(place, "croissant.json"), document.encode())
    return _told(to, place, made)


def _told(to: str, place: str, made: TableFile) -> Export:
    notes = [f"no sample has {', '.join(made.absent)}"] if made.absent else []
    if made.missed:
        notes.append(f"{made.missed} samples not met in the catalogue: their fields are empty")
    return Export(to, place, made.rows, notes)


def _fiftyone(table: ScoreTable, place: str, top: int, name: str) -> Export:
    made = write_fiftyone(table, place, top, name)
    notes = [f"left out: {shard}  {key}: {reason}" for shard, key, reason in made.left_out[:20]]
    if len(made.left_out) > 20:
        notes.append(f"… {len(made.left_out)} samples left out in all")
    return Export("fiftyone", place, made.rows, notes)
