"""An output folder belongs to one configuration: it is claimed by ``run.json``, or refused."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

from multimem_ray.config import Config, difference
from multimem_ray.errors import ReplacedError, ResumeError
from multimem_ray.fence import take
from multimem_ray.run import FORMAT, Run, Shards, recorded_config, require_format, run_document
from multimem_ray.setup.contents import keep_contents
from multimem_ray.setup.discovery import inspect


def open_run(config: Config, *, writes: bool = True) -> tuple[Run, Shards]:
    """Find the shards, settle fields and label, and claim the output folder.

    Args:
        writes: Into what the run is made of; whoever did so before stops, see
            :mod:`multimem_ray.fence`.

    Raises:
        ShardNotFoundError: No shard at all.
        ConfigError: A configured modality is in no sample, or fewer than two were found.
        ResumeError: The output belongs to another configuration, or shards were replaced.
        ReplacedError: Somebody else opened it at the same time.
        StorageError: A later version of the tool wrote it.
    """
    run, shards = inspect(config)
    if _known(run, shards) is None or writes:
        run = _claimed(run, shards)
    if run.is_stored:
        from multimem_ray.embeddings.open import store_units

        store_units(run, shards)
    else:
        keep_contents(run, shards)
    return run, shards


def with_models(run: Run, shards: Shards, models: int) -> Run:
    """The run with more models, which its folder is claimed for."""
    design = run.config.design.model_copy(update={"models": models})
    grown = replace(run, config=run.config.model_copy(update={"design": design}))
    _record(grown, shards)
    return grown


def _claimed(run: Run, shards: Shards) -> Run:
    """The run with an epoch of its own, told by ``run.json``."""
    fence = take(run.storage, run.output, {"fingerprint": run.fingerprint})
    run = replace(run, epoch=fence.epoch)
    _record(run, shards)
    return run


def _record(run: Run, shards: Shards) -> None:
    """Write ``run.json``, unless somebody else did since it was looked at."""
    url = run.path("run.json")
    version = run.storage.version(url)
    old = _known(run, shards) or {}
    content = _content(run, shards, old.get("started_at", time.time()))
    run.fence.require()
    if not run.storage.write_if(url, json.dumps(content, indent=1).encode(), version):
        run.fence.require()
        raise ReplacedError(f"{url}: another process wrote it at the same time; run this again")


def _known(run: Run, shards: Shards) -> dict[str, Any] | None:
    """The ``run.json`` that is there, if this run may go on with it."""
    url = run.path("run.json")
    if not run.storage.exists(url):
        return None
    old = run_document(run.storage.read_bytes(url), url)
    require_format(old, url)
    if old.get("fingerprint") != run.fingerprint and not _only_adds_models(run, old):
        raise ResumeError(_refusal(run, shards, old))
    _require_layout(run, old)
    return old


def _content(run: Run, shards: Shards, started: float) -> dict[str, Any]:
    return {
        # A folder that nobody opened twice is one that earlier versions can read.
        "format": FORMAT if run.epoch > 1 else 1,
        "config": run.config.model_dump(mode="json"),
        "fingerprint": run.fingerprint,
        "fields": dict(run.fields),
        "shard_set": run.shard_set,
        "pool_below": run.pool_below,
        "weights": run.weights,
        "groups": run.groups,
        "shard_parts": run.shard_parts,
        "views": run.views,
        "modalities": list(run.modalities),
        "label": run.label,
        "design": run.design.describe(),
        "shards": len(shards.scored),
        "held_out_shards": len(shards.held_out),
        "bytes": sum(shard.size for shard in shards.scored),
        "missing": list(shards.missing),
        "versions": _versions(),
        "started_at": started,
    }


def _require_layout(run: Run, old: Mapping[str, Any]) -> None:
    """Raise ResumeError if scores that are there lie in folders of another kind."""
    before, now = old["config"]["scoring"].get("partition_by"), run.config.scoring.partition_by
    if before != now:
        lines = difference({"partition_by": before}, {"partition_by": now}, "scoring.")
        raise ResumeError(
            f"{run.output} holds scores that are partitioned in another way: {lines[0]}. "
            "It changes no score: use the old value to resume, or another output folder."
        )


def _only_adds_models(run: Run, old: Mapping[str, Any]) -> bool:
    """Whether the run asks for more models and is otherwise the same: they are trained in addition.

    What was scored with fewer is scored again, since its markers carry the old fingerprint.
    """
    then = Run.from_json(old)
    grown = run.config.design.models > then.config.design.models
    stable = run.config.design.kind != "leave_subset_out"
    same = then.training_fingerprint == run.training_fingerprint
    return grown and stable and same


def _refusal(run: Run, shards: Shards, old: Mapping[str, Any]) -> str:
    before = recorded_config(old).score_relevant()
    lines = difference(before, run.config.score_relevant())
    if dict(old["fields"]) != dict(run.fields):
        lines += difference({"fields": old["fields"]}, {"fields": dict(run.fields)})
    if old["shard_set"] != run.shard_set:
        lines.append(
            f"the set of shards: {old['shards']} then, {len(shards.scored)} now; the reference "
            "models know only those they were trained on"
        )
    if old["weights"] != run.weights:
        lines.append("the weights that it was given: a checkpoint has other content now")
    if old.get("groups", "") != run.groups:
        lines.append("design.group: the table of groups has other content now")
    if old.get("views", 1) != run.views and not run.is_stored:
        made_by = old.get("versions", {}).get("multimem-ray", "an earlier version")
        lines.append(
            f"the way in which views are made (version {old.get('views', 1)} then, {run.views} "
            f"now): what it holds can be read as before; multimem_ray {made_by} can finish it"
        )
    changes = "; ".join(lines) or "the version of the tool"
    return (
        f"{run.output} holds a run with another configuration: {changes}. "
        "Use another output folder, or the old values to resume it."
    )


def _versions() -> dict[str, str]:
    names = ("multimem-ray", "ray", "torch", "torchvision", "torchaudio", "pyarrow", "webdataset")
    # Where everything is done in one process, there may be no Ray.
    there = {d.name.lower().replace("_", "-") for d in metadata.distributions() if d.name}
    return {name: metadata.version(name) for name in names if name in there}
