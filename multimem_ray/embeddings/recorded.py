"""What stored embeddings say of themselves before anything is scored: design and held-out set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimem_ray.config import StorageConfig
from multimem_ray.embeddings import layout
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.own_files import read_own
from multimem_ray.storage import Storage


def load_manifest(run: str, storage: Storage) -> dict[str, Any]:
    """What ``multimem embed`` wrote last.

    Args:
        run: Output of the run.

    Raises:
        ConfigError: There is none.
    """
    url = storage.join(run, layout.FOLDER, layout.MANIFEST)
    try:
        found = read_own(storage, url, "run `multimem embed` there again")
    except (StorageError, ValueError) as error:
        raise ConfigError(
            f"data.embeddings.run: {run} holds no complete embeddings ({error}); finish "
            "`multimem embed` there, or name the embeddings of each model in data.embeddings.models"
        ) from error
    return found


def recorded_defaults(given: Any, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What follows for the rest of the configuration from ``data.embeddings``.

    Args:
        given: ``data.embeddings`` as the user wrote it.
        raw: All that the user wrote.
    """
    given = {"run": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return {}  # validation will say what is wrong
    if given.get("run"):
        storage = Storage(StorageConfig.model_validate(raw.get("storage") or {}))
        return _of_run(load_manifest(str(given["run"]), storage))
    models, design = given.get("models"), raw.get("design") or {}
    if not isinstance(models, list) or not isinstance(design, Mapping):
        return {}
    sets = [item if isinstance(item, Mapping) else {"files": item} for item in models]
    if design.get("kind", "given") != "given":
        if any(item.get("members") for item in sets):
            raise ConfigError(
                f"design.kind: {design['kind']} is a rule that says who trained on what, and "
                "data.embeddings.models says it too (members); keep one of the two"
            )
        return {"design": {"models": len(sets)}}
    if design.get("given"):
        return {}
    said = [
        {"checkpoint": folder_of(item), "members": item.get("members") or "recorded"}
        for item in sets
    ]
    return {"design": {"kind": "given", "given": said}}


def folder_of(item: Mapping[str, Any]) -> str:
    """The folder in which a set of embeddings lies, as far as its name tells."""
    named = item.get("files") or item.get("keys") or "."
    url = str(named if isinstance(named, str) else named[0])
    parts = url.split("/")
    magic = [place for place, part in enumerate(parts) if any(c in part for c in "*?[{")]
    if magic:
        parts = parts[: magic[0]]
    elif parts[-1].endswith((".parquet", ".npy", ".txt")):
        parts = parts[:-1]
    return "/".join(parts) or "."


def _of_run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    design, held_out = dict(manifest["design"]), dict(manifest["held_out"])
    if design.get("group"):
        design["group"] = layout.GROUP
    if design["kind"] != "given":
        del design["given"]
    for name in ("reliability", "budget_hours", "max_models"):
        design.pop(name, None)  # no model is added to stored embeddings
    if held_out.pop("shards") is not None:
        del held_out["fraction"]
    if held_out["balance"] is not None:
        # Other fields than the label are not stored.
        same = held_out["balance"] == manifest["label"]
        held_out["balance"] = layout.LABEL if same else None
    return {
        "design": design,
        "held_out": held_out,
        "scoring": {"views": manifest["views"], "seed": manifest["view_seed"]},
        "data": {
            "fields": {name: name for name in manifest["modalities"]},
            "label": layout.LABEL if manifest["label"] else None,
        },
    }
