"""What an earlier audit knows of the training samples, as training wants it.

The driver streams the scores of the references once, decides by this run's design who trains on
what, and writes one small file that every bank reads; see
:mod:`multimem_ray.mitigation.reference_scores`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimem_ray.design.key_list import KeyList, hashed, read_keys
from multimem_ray.errors import ConfigError
from multimem_ray.mitigation.reference_scores import PLACE, schema
from multimem_ray.progress import Progress
from multimem_ray.results.arrays import floats
from multimem_ray.results.ranking import ranking
from multimem_ray.results.reader import ScoreTable
from multimem_ray.run import Run
from multimem_ray.store.schema import CLIPMEM

_COLUMNS = ("key", "shard", "group", "multimem", "cmc_out", "unseen_clipmem")


def prepare_references(run: Run, progress: Progress) -> None:
    """Write what the references know, unless it is there; nothing without a mitigation.

    Raises:
        ConfigError: The references do not fit this run, or have nothing scored.
        StorageError: They cannot be read.
    """
    mitigation, storage = run.config.mitigation, run.storage
    if mitigation.kind == "none" or mitigation.references is None:
        return
    url = run.path(*PLACE)
    if storage.exists(url):
        return
    table = ScoreTable(mitigation.references, storage)
    _check(run, table)
    listed = read_keys(mitigation.samples, storage) if mitigation.samples else None
    known = set(table.columns)
    pairs = [c for c in table.columns if c.startswith(CLIPMEM)]
    wanted = [*_COLUMNS, *(f"unseen_{m}" for m in run.modalities), *pairs]
    columns = [name for name in wanted if name in known]
    clipmem = ranking(table, "clipmem")
    with progress.task("references", len(table.score_files), unit="files") as shown:
        batches = table.batches(columns, progress=lambda done, _: shown.update(done))
        parts = [_judged(run, batch, clipmem.values(batch), listed) for batch in batches]
    whole = pa.Table.from_batches(parts, schema=schema(len(run.design.model_ids())))
    buffer = io.BytesIO()
    pq.write_table(whole, buffer, compression="zstd")
    storage.write_atomic(url, buffer.getvalue())


def _judged(
    run: Run, batch: pa.RecordBatch, clipmem: NDArray[np.float64], listed: KeyList | None
) -> pa.RecordBatch:
    keys, shards = batch["key"].to_pylist(), batch["shard"].to_pylist()
    groups = batch["group"].to_pylist() if run.config.design.group else keys
    member = run.design.members(groups)
    outside = [not run.trains_on(shard) for shard in shards]
    held_out = [
        bool(run.held_out_rule.is_held_out([group], shard)[0])
        for group, shard in zip(groups, shards, strict=True)
    ]
    member[np.array(outside) | np.array(held_out)] = False
    own = np.stack([floats(batch[f"unseen_{m}"]) for m in run.modalities], axis=1)
    unknown = np.isnan(own).all(axis=1)
    misfit = np.where(unknown, -1, np.where(np.isnan(own), np.inf, own).argmin(axis=1))
    models = member.shape[1]
    columns = [
        pa.array(hashed(keys)),
        pa.array(floats(batch["multimem"])),
        pa.array(clipmem),
        pa.array(floats(batch["cmc_out"])),
        pa.array(floats(batch["unseen_clipmem"])),
        pa.array(misfit.astype(np.int8)),
        pa.array(_listed(run, listed, shards, keys)),
        pa.FixedSizeListArray.from_arrays(pa.array(member.reshape(-1)), models),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema(models))


def _listed(run: Run, listed: KeyList | None, shards: list[str], keys: list[str]) -> NDArray[Any]:
    found = np.zeros(len(keys), bool)
    if listed is None:
        return found
    for shard in set(shards):
        rows = np.array([s == shard for s in shards])
        own = [key for key, here in zip(keys, rows, strict=True) if here]
        found[rows] = listed.contains(own, run.storage.name(shard))
    return found


def _check(run: Run, table: ScoreTable) -> None:
    """The references must know the samples in this run's modalities, and post-training its models.

    Raises:
        ConfigError: They don't.
    """
    place = f"mitigation.references: {table.output}"
    content = table.document("run.json")
    if not content:
        raise ConfigError(f"{place} holds no run; name the output of a finished audit")
    if not table.score_files:
        raise ConfigError(f"{place} has nothing scored yet; run `multimem audit` on it first")
    missing = [m for m in run.modalities if f"unseen_{m}" not in table.columns]
    if missing:
        raise ConfigError(
            f"{place} does not say how well {', '.join(missing)} fits samples that a model never "
            "saw: audit the same modalities there, with this version"
        )
    design = content["config"]["design"]
    if run.config.design.group != design.get("group"):
        raise ConfigError(f"{place} groups samples by {design.get('group')}: set design.group so")
    if run.config.mitigation.kind == "post_training":
        _check_models(run, place, content)


def _check_models(run: Run, place: str, content: Mapping[str, Any]) -> None:
    """Models go on from models that saw the same samples."""
    theirs, own = content["config"], run.config.model_dump(mode="json")
    for design in (theirs["design"], own["design"]):
        # S_I is as large as S_C unless it is said otherwise.
        candidate, independent = design["candidate_fraction"], design.get("independent_fraction")
        if independent not in (None, candidate):
            design["candidate_fraction"] = [candidate, independent]
    wanted = {
        "design": ("kind", "seed", "candidate_fraction", "pool", "pool_shards"),
        "held_out": ("fraction",),
        "model": ("preset", "adapter", "dim", "towers"),
    }
    for section, names in wanted.items():
        for name in names:
            if theirs[section].get(name) != own[section][name]:
                raise ConfigError(
                    f"{place}: its {section}.{name} is {theirs[section].get(name)!r} and here "
                    f"{own[section][name]!r}; post_training goes on with the very models of it"
                )
    if theirs["design"]["models"] < run.config.design.models:
        raise ConfigError(f"{place} has {theirs['design']['models']} models; ask for no more")
