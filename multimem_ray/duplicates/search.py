"""From what a user names to groups: a run, stored embeddings, or shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from multimem_ray.config import EmbeddingSet
from multimem_ray.duplicates.find import (
    MOST,
    THRESHOLD,
    DuplicateGroups,
    check_numbers,
    find_groups,
    work_folder,
)
from multimem_ray.duplicates.looks import LOOKS
from multimem_ray.duplicates.sources import Found, of_embeddings, of_shards
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.recorded import load_manifest
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.run import Run, load_run
from multimem_ray.setup import detect_fields
from multimem_ray.storage import Storage
from multimem_ray.store.tables import DUPLICATES

By: TypeAlias = Literal["auto", "embeddings", "looks"]


def duplicates(
    source: str | Sequence[str] | EmbeddingSet,
    out: str | None = None,
    progress: Progress | None = None,
    *,
    by: By = "auto",
    modalities: Sequence[str] = (),
    threshold: float = THRESHOLD,
    max_size: int = MOST,
    fields: Mapping[str, str] | None = None,
    key: str = "key",
    model: str | None = None,
    work: str | None = None,
    storage: Storage | None = None,
) -> DuplicateGroups:
    """Find near-duplicates, and write the table of their groups.

    Args:
        source: Output of a run; shards, as ``data.shards``; or stored embeddings: a Parquet file,
            or a folder or glob of such, or an ``EmbeddingSet``.
        out: URL of the table; of a run by default ``duplicates.parquet`` in its output.
        by: ``embeddings`` (of a run: those that ``multimem embed`` wrote) or ``looks``; auto =
            looks of shards and of a run's shards, embeddings otherwise.
        modalities: By which samples are compared; default: all there are, of looks image, audio
            and video.
        threshold: Similarity from which two samples are a pair.
        max_size: Samples of the largest group.
        fields: Of shards, modality to field; default: found.
        key: Of stored embeddings, the column with the key.
        model: Of a run's embeddings, by which model; default: the first.
        work: Folder for the vectors meanwhile; default: that of temporary files.

    Raises:
        ConfigError: The source is none of these, or lacks a modality.
        StorageError: A file cannot be read or written.
    """
    progress, storage = progress or Progress(), storage or Storage()
    check_numbers(threshold, max_size)
    run = isinstance(source, str) and storage.exists(storage.join(source, "run.json"))
    if out is None and not run:
        raise ConfigError("duplicates: say where the table goes, such as --out groups.parquet")
    table = out or storage.join(str(source), DUPLICATES)
    if not table.endswith(".parquet"):
        raise ConfigError(f"duplicates: {table}: the name of the table ends in .parquet")
    with work_folder(work) as name, progress.task("read", 1, unit="read") as shown:
        item = _embedded(source, by, model, storage, run=run)
        if item is not None:
            found = of_embeddings(item, key, modalities, storage, Path(name), shown.resize)
        else:
            found = _looked_at(source, modalities, fields, storage, Path(name), shown, run=run)
        progress.say(f"compared by {', '.join(sorted(found.vectors.shapes))}")
        return find_groups(found, table, threshold, max_size, storage, progress)


def _embedded(
    source: str | Sequence[str] | EmbeddingSet,
    by: By,
    model: str | None,
    storage: Storage,
    *,
    run: bool,
) -> EmbeddingSet | None:
    """The stored embeddings that are meant, if any are."""
    if isinstance(source, EmbeddingSet):
        return source
    if run:
        # Towers that were trained for an audit tell copies worse than looks do: docs/concepts.md.
        if by == "looks" or (by == "auto" and model is None and _has_looks(str(source), storage)):
            return None
        folder = storage.join(str(source), layout.FOLDER)
        models = load_manifest(str(source), storage)["models"]
        if model is not None and model not in models:
            raise ConfigError(f"duplicates: no model '{model}'; there are {', '.join(models)}")
        chosen = models[0] if model is None else model
        return EmbeddingSet.model_validate({"files": storage.join(folder, f"model={chosen}")})
    files = isinstance(source, str) and _holds_parquet(source, storage)
    if by == "embeddings" or (by == "auto" and files):
        return EmbeddingSet.model_validate({"files": source})
    return None


def _has_looks(output: str, storage: Storage) -> bool:
    run = Run.from_json(load_run(output, storage))
    return run.config.data.embeddings is None and any(name in LOOKS for name in run.fields)


def _holds_parquet(source: str, storage: Storage) -> bool:
    if source.endswith(".parquet"):
        return True
    plain = not any(c in source for c in "*?[{@:")
    return plain and any(f.url.endswith(".parquet") for f in storage.list(source))


def _looked_at(
    source: Any,
    modalities: Sequence[str],
    fields: Mapping[str, str] | None,
    storage: Storage,
    folder: Path,
    shown: Any,
    *,
    run: bool,
) -> Found:
    settings: Mapping[str, Mapping[str, Any]] = {}
    shards = source
    if run:
        opened = Run.from_json(load_run(str(source), storage))
        if opened.config.data.embeddings is not None:
            raise ConfigError("duplicates: a run on stored embeddings has no shards: name those")
        apart = opened.config.held_out.shards
        lists = [s for s in (opened.config.data.shards, apart) if s is not None]
        shards = [url for spec in lists for url in ([spec] if isinstance(spec, str) else spec)]
        fields, settings = fields or opened.fields, opened.config.modalities
    fields = fields or detect_fields(shards, storage)[0]
    names = list(modalities) or [name for name in fields if name in LOOKS]
    unseen = [name for name in names if name not in LOOKS or name not in fields]
    if unseen or not names:
        raise ConfigError(
            f"duplicates: {', '.join(unseen) or 'no modality'} can be compared by looks; these can:"
            f" {', '.join(LOOKS)}; the samples have {', '.join(fields)}; others are compared by "
            "their embeddings"
        )
    fields = {name: fields[name] for name in sorted(names)}
    return of_shards(shards, fields, settings, storage, folder, shown.resize)
