"""What lies beside the scores of a run: its data, models, held-out set and other documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from multimem_ray.arrow_files import READ_ERRORS, read_parquet
from multimem_ray.errors import MultiMemError
from multimem_ray.own_files import HELD_OUT_AGAIN, parsed_value, read_own
from multimem_ray.run import Run
from multimem_ray.storage import Storage
from multimem_ray.store.footers import RUN
from multimem_ray.store.names import means_file
from multimem_ray.store.tables import SHARDS
from multimem_ray.verify.finding import Finding

_BEHIND = (SafetensorError, KeyError, IndexError, TypeError, AttributeError)  # of garbled content
_AGAIN = {
    "summary.json": "remove it and run `multimem report` again",
    "evaluation.json": "remove it and run `multimem evaluate` again",
    "mitigation.json": "remove it and run `multimem mitigate` again",
    "timings.json": "remove it: only the comparison of the plan with the run is lost",
    "plan.json": "remove it: only the comparison of the plan with the run is lost",
}
_TRAIN = "remove the folder and run `multimem train` again: the same weights come of it"


def check_documents(run: Run, finding: Finding) -> None:
    """Documents that commands write at the end: each is there and whole, or absent."""
    for name, way_out in _AGAIN.items():
        url = run.path(name)
        if run.storage.exists(url):
            finding.checked["documents"] += 1
            with _told(finding, url, way_out):
                parsed_value(run.storage.read_bytes(url), url, way_out)


def check_data(run: Run, finding: Finding) -> dict[str, tuple[int, str]]:
    """``shards.parquet``; returns URL to size and version."""
    url, way_out = run.path(SHARDS), "remove it and run `multimem score` again"
    if run.is_stored or not run.storage.exists(url):
        return {}
    known: dict[str, tuple[int, str]] = {}
    with _told(finding, url, way_out):
        finding.checked["documents"] += 1
        rows = read_parquet(run.storage.read_bytes(url), url).to_pylist()
        known.update((row["url"], (row["size"], row["version"])) for row in rows)
    return known


def check_models(run: Run, finding: Finding, *, needed: bool, deep: bool) -> None:
    """Folders of reference models.

    Args:
        needed: Scores were made of them, so that each must be done.
        deep: Also look at every weight.
    """
    if run.is_stored:
        return
    given = run.design.checkpoints()
    for model in run.design.model_ids():
        if model in given:
            continue
        folder = run.model_folder(model)
        finding.checked["models"] += 1
        if not folder.is_done():
            if needed:
                finding.fault(folder.url, "not complete, though scores were made of it", _TRAIN)
            continue
        for name in ("config.json", "membership.json"):
            with _told(finding, folder.path(name), _TRAIN):
                read_own(run.storage, folder.path(name), _TRAIN)
        with _told(finding, folder.path("history.jsonl"), _TRAIN):
            folder.history()
        url = folder.path("model.safetensors")
        with _told(finding, url, _TRAIN):
            _require_weights(run.storage, url, finding, deep=deep)


def _require_weights(storage: Storage, url: str, finding: Finding, *, deep: bool) -> None:
    """The file is as long as its header says, and with ``deep`` its weights are numbers."""
    size = storage.info(url).size
    with storage.open(url) as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(min(length, size)))
    ends = [0, *(int(t["data_offsets"][1]) for n, t in header.items() if n != "__metadata__")]
    if size != 8 + length + max(ends):
        reason = f"{size} bytes, where its header says {8 + length + max(ends)}"
        finding.fault(url, reason, _TRAIN)
    elif deep:
        # bfloat16 is no type of NumPy; what it cannot read is left to whoever loads the model.
        kinds = {t["dtype"] for n, t in header.items() if n != "__metadata__"}
        if kinds <= {"F64", "F32", "F16", "I64", "I32", "U8", "BOOL"}:
            _require_finite(load(storage.read_bytes(url)), url, finding, _TRAIN)
            finding.checked["weights by value"] += 1


def check_held_out(run: Run, finding: Finding, *, needed: bool) -> dict[str, int]:
    """The held-out set; returns shard to the number of its samples in it.

    Args:
        needed: Scores were compared with it, so that it must be there.
    """
    place = run.path("held_out")
    url = run.storage.join(place, "held_out.json")
    if not run.storage.exists(url):
        if needed:
            finding.fault(url, "absent, though scores were compared with it", HELD_OUT_AGAIN)
        return {}
    with _told(finding, url, HELD_OUT_AGAIN):
        finding.checked["held-out sets"] += 1
        told = read_own(run.storage, url, HELD_OUT_AGAIN, fingerprint=str)
        if told["fingerprint"] != run.fingerprint:
            if needed:
                finding.fault(url, "of another configuration", HELD_OUT_AGAIN)
            return {}
    _check_means(run, run.storage.join(place, means_file(told)), finding)
    return _plan(run, run.storage.join(place, "keys.parquet"), finding)


def _check_means(run: Run, url: str, finding: Finding) -> None:
    with _told(finding, url, HELD_OUT_AGAIN):
        arrays = load(run.storage.read_bytes(url))
        means, models = arrays.get("means"), len(run.design.model_ids())
        if means is None or means.shape[:2] != (models, len(run.modalities)):
            finding.fault(url, "not the means of this run's models and modalities", HELD_OUT_AGAIN)
        else:
            _require_finite({"means": means}, url, finding, HELD_OUT_AGAIN)


def _plan(run: Run, url: str, finding: Finding) -> dict[str, int]:
    counts: dict[str, int] = {}
    with _told(finding, url, HELD_OUT_AGAIN):
        table = read_parquet(run.storage.read_bytes(url), url)
        if (table.schema.metadata or {}).get(RUN) != run.fingerprint.encode():
            finding.fault(url, "of another configuration", HELD_OUT_AGAIN)
            return {}
        rows = list(zip(table["shard"].to_pylist(), table["key"].to_pylist(), strict=True))
        if len(set(rows)) < len(rows):
            finding.fault(url, "names a sample twice", HELD_OUT_AGAIN)
        for shard, _ in rows:
            counts[shard] = counts.get(shard, 0) + 1
    return counts


def _require_finite(arrays: Mapping[str, Any], url: str, finding: Finding, way_out: str) -> None:
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            finding.fault(url, f"{name} holds NaN or infinite numbers", way_out)


@contextmanager
def _told(finding: Finding, url: str, way_out: str) -> Iterator[None]:
    """Turn what a reader raises over a file into a fault of it."""
    try:
        yield
    except (*READ_ERRORS, *_BEHIND, MultiMemError) as error:
        said = " ".join(str(error).split())[:300].removeprefix(f"{url}: ")
        said = said.removesuffix(f"; {way_out}") or type(error).__name__
        finding.fault(url, said, way_out)
