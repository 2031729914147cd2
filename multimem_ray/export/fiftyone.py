"""A folder that FiftyOne opens as ``FiftyOneDataset``: the most memorized samples with their media.

    metadata.json    the fields and their types, as FiftyOne's database has them
    samples.json     a document for each sample
    data/            its picture, clip or sound as it stands in the shard, under a name of ours

FiftyOne wants a file for each sample, so media are copied out of the shards. Which modality that
is: the first of image, video and audio that the run has; samples without it are counted and named.
Documents say that they are of FiftyOne 1.0; later versions bring them up to date when they read
them (``fiftyone/utils/data/importers.py``, ``FiftyOneDatasetImporter``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multimem_ray.design.hashing import uniform
from multimem_ray.errors import ConfigError, SampleError, ShardError, StorageError
from multimem_ray.modalities import registry
from multimem_ray.modalities.fields import Fields
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top as best
from multimem_ray.run import Run, load_run
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.store.names import shard_id

VERSION = "1.0.0"
MEDIA = {"image": "image", "video": "video", "audio": "unknown"}
"""Modality to FiftyOne's media type."""

_CORE = "fiftyone.core.fields."
_CREATED = {"$date": "2026-01-01T00:00:00Z"}  # FiftyOne puts the time of import in its place
_TEXT = ("key", "shard", "caption")
_LISTED = 0.05
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,8}")


@dataclass
class FiftyOneFolder:
    """What was written.

    Attributes:
        url: The folder.
        rows: Samples in it.
        left_out: Shard, key and reason of those that were asked for and are not.
    """

    url: str
    rows: int = 0
    left_out: list[tuple[str, str, str]] = field(default_factory=list)


def write_fiftyone(table: ScoreTable, folder: str, top: int, name: str) -> FiftyOneFolder:
    """Write the folder.

    Args:
        table: The scores of a run.
        folder: Where it goes.
        top: How many samples, the most memorized.
        name: Of the data set.

    Raises:
        ConfigError: The run has no modality that can be looked at, or there are no shards.
        StorageError: Something cannot be read or written.
    """
    run = Run.from_json(load_run(table.output, table.storage))
    registry.load_plugins(run.config.data.plugins)
    modality = next((name for name in MEDIA if name in run.fields), None)
    if run.is_stored or modality is None:
        raise ConfigError(
            f"{table.output}: FiftyOne shows pictures, clips and sounds, and this run has "
            f"{'stored embeddings' if run.is_stored else ', '.join(run.modalities)}"
        )
    rows = best(table, None, top)
    made = FiftyOneFolder(folder)
    documents: dict[tuple[str, str], dict[str, Any]] = {}
    by_shard: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], {})[row["key"]] = row
    for shard, wanted in sorted(by_shard.items()):
        for sample in _samples(table, run, shard, wanted, made):
            path = _write_media(table, run, sample, modality, made)
            if path is not None:
                document = _document(wanted[sample.key], path, modality, table)
                documents[shard, sample.key] = document | _caption(run, sample)
    ranked = [(row["shard"], row["key"]) for row in rows]
    told = [documents[place] for place in ranked if place in documents]
    made.rows = len(told)
    storage = table.storage
    about = json.dumps(_metadata(name, modality, told)).encode()
    storage.write_atomic(storage.join(folder, "samples.json"), _samples_json(told))
    storage.write_atomic(storage.join(folder, "metadata.json"), about)
    return made


def _samples(
    table: ScoreTable, run: Run, shard: str, wanted: Mapping[str, Any], made: FiftyOneFolder
) -> Iterator[Sample]:
    """The samples of a shard that are asked for; what is not met is left out with the reason."""
    left, reason = dict(wanted), "its key is not in the shard any more"
    try:
        for item in read_shard(shard, table.storage, limits=run.config.data.limits):
            if not left:
                break
            if isinstance(item, Sample) and left.pop(item.key, None) is not None:
                yield item
    except (ShardError, StorageError) as error:
        reason = str(error)
    made.left_out += [(shard, key, reason) for key in left]


def _write_media(
    table: ScoreTable, run: Run, sample: Sample, modality: str, made: FiftyOneFolder
) -> str | None:
    """Path of the copied medium in the folder; None where there is none, with the reason."""
    try:
        fields = Fields({modality: run.fields[modality]})
        parts = [p for p in fields.alternatives[modality] if not p.startswith("json.")]
        part = next((p for p in parts if sample.member(p) is not None), None)
        data = None if part is None else sample.member(part)
    except SampleError as error:
        part, data = None, None
        made.left_out.append((sample.shard, sample.key, str(error)))
        return None
    if part is None or data is None:
        made.left_out.append((sample.shard, sample.key, f"it has no {modality}"))
        return None
    extension = part.rsplit(".", 1)[-1]
    if not _EXTENSION.fullmatch(extension):
        extension = "bin"
    # A key may hold anything that a path may not.
    path = f"data/{shard_id(sample.shard)}/{sample.index:09d}.{extension}"
    table.storage.write_atomic(table.storage.join(made.url, path), data)
    return path


def _caption(run: Run, sample: Sample) -> dict[str, Any]:
    if "text" not in run.fields:
        return {}
    try:
        value = Fields({"text": run.fields["text"]}).value(sample, "text")
    except SampleError:
        return {}
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return {} if value is None else {"caption": value if isinstance(value, str) else str(value)}


def _document(
    row: Mapping[str, Any], path: str, modality: str, table: ScoreTable
) -> dict[str, Any]:
    lists = ("cmc", "member", "modalities")
    plain = {
        name: value
        for name, value in row.items()
        if name not in lists and name != "label" and value is not None
    }
    q, label = row.get("multimem_q"), row.get("label")
    place = f"{row['shard']}\0{row['key']}"
    identity = {"$oid": _object_id(place)}
    document: dict[str, Any] = {
        "_id": identity,
        "filepath": path,
        "tags": ["memorized"] if q is not None and q <= _LISTED else [],
        "_media_type": MEDIA[modality],
        "_rand": float(uniform(0, "fiftyone", [place])[0]),
        **plain,
        "modalities": list(row["modalities"]),
    }
    if label is not None:
        document["label"] = {
            "_id": {"$oid": _object_id(f"{place}\0label")},
            "_cls": "Classification",
            "tags": [],
            "label": label,
        }
    return document


def _object_id(text: str) -> str:
    """24 hex digits that name a document, the same each time."""
    import hashlib

    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _samples_json(documents: Sequence[dict[str, Any]]) -> bytes:
    lines = ",\n".join(json.dumps(one, allow_nan=False) for one in documents)
    return f'{{"samples": [\n{lines}\n]}}\n'.encode()


def _metadata(name: str, modality: str, documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kinds: dict[str, str] = {}
    for document in documents:
        for key, value in document.items():
            if key in {"_id", "filepath", "tags", "_media_type", "_rand", "label", "modalities"}:
                continue
            kind = {bool: "Boolean", int: "Int", float: "Float"}.get(type(value), "String")
            kinds[key] = "Float" if {kinds.get(key, kind), kind} == {"Int", "Float"} else kind
    text = _CORE + "StringField"
    fields = [
        _described("id", _CORE + "ObjectIdField", db_field="_id"),
        _described("filepath", text),
        _described("tags", _CORE + "ListField", subfield=text),
        _described(
            "metadata",
            _CORE + "EmbeddedDocumentField",
            embedded="fiftyone.core.metadata." + _METADATA[MEDIA[modality]],
        ),
        _described("_media_type", text),
        _described("_rand", _CORE + "FloatField"),
        _described("_dataset_id", _CORE + "ObjectIdField"),
        _described("created_at", _CORE + "DateTimeField", read_only=True),
        _described("last_modified_at", _CORE + "DateTimeField", read_only=True),
        _described("modalities", _CORE + "ListField", subfield=text),
        *(_described(key, f"{_CORE}{kind}Field") for key, kind in kinds.items()),
    ]
    if any("label" in document for document in documents):
        fields.append(
            _described(
                "label",
                _CORE + "EmbeddedDocumentField",
                embedded="fiftyone.core.labels.Classification",
                fields=[
                    _described("id", _CORE + "ObjectIdField", db_field="_id"),
                    _described("tags", _CORE + "ListField", subfield=text),
                    _described("label", text),
                    _described("confidence", _CORE + "FloatField"),
                    _described("logits", _CORE + "VectorField"),
                ],
            )
        )
    return {
        "name": name,
        "version": VERSION,
        "created_at": _CREATED,
        "media_type": MEDIA[modality],
        "sample_fields": fields,
        "frame_fields": [],
        "info": {},
        "tags": [],
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "group_media_types": {},
        "app_config": {},
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


_METADATA = {"image": "ImageMetadata", "video": "VideoMetadata", "unknown": "Metadata"}


def _described(
    name: str,
    kind: str,
    *,
    subfield: str | None = None,
    embedded: str | None = None,
    db_field: str | None = None,
    fields: Sequence[dict[str, Any]] = (),
    read_only: bool = False,
) -> dict[str, Any]:
    """A field as FiftyOne's database describes it."""
    return {
        "name": name,
        "ftype": kind,
        "subfield": subfield,
        "embedded_doc_type": embedded,
        "db_field": db_field or name,
        "fields": list(fields),
        "description": None,
        "info": None,
        "read_only": read_only,
        "created_at": _CREATED,
    }
