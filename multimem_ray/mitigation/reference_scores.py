"""What the references of a mitigation know of the training samples.

The driver streams the scores of an earlier audit once, decides by this run's design who trains on
what, and writes one small file, which every process that trains reads: nothing is embedded again. A
sample is known by a 64-bit hash of its key (of the name of its shard and its key where keys repeat,
which the file's metadata says), so a row is some forty bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimem_ray.arrow_files import read_parquet
from multimem_ray.config import CONTENT, MitigationConfig
from multimem_ray.design.hashing import seed_of
from multimem_ray.design.key_list import EXAMPLES, KeyList, hashed, read_keys
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.results.arrays import floats
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.verdict import SHRUNK
from multimem_ray.run import Run
from multimem_ray.shards.met import few_met, require_met
from multimem_ray.storage import FileInfo
from multimem_ray.store.schema import CLIPMEM

Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]

PLACE = ("mitigation", "judged.parquet")
_BY_SHARD = b"multimem_ray.by_shard"
_COLUMNS = ("key", "shard", "group", SHRUNK, "multimem", "cmc_out", "unseen_clipmem")


def schema(models: int) -> pa.Schema:
    """Columns of the file: hash of the name, scores, the modality that fits least, membership."""
    return pa.schema(
        [
            ("id", pa.uint64()),
            ("multimem_shrunk", pa.float64()),
            ("multimem", pa.float64()),
            ("clipmem", pa.float64()),
            ("cmc_out", pa.float64()),
            ("unseen_clipmem", pa.float64()),
            ("misfit", pa.int8()),
            ("listed", pa.bool_()),
            ("member", pa.list_(pa.bool_(), models)),
        ]
    )


@dataclass(frozen=True)
class ReferenceScores:
    """Samples in the order of their hashes.

    Attributes:
        ids: (N,) sorted.
        scores: Column → (N,), NaN where undefined.
        misfit: (N,) place of the modality that fits least among the run's; -1 if not known.
        listed: (N,) whether the user's list has it.
        member: (N, M) which models of this run train on it.
        by_shard: Whether the hashes are of shards and keys.
    """

    ids: Hashes
    scores: dict[str, Floats]
    misfit: NDArray[np.int8]
    listed: NDArray[np.bool_]
    member: NDArray[np.bool_]
    by_shard: bool = False

    @classmethod
    def load(cls, run: Run) -> ReferenceScores:
        """Read the file of a run."""
        table = read_parquet(run.storage.read_bytes(run.path(*PLACE)), run.path(*PLACE))
        ids = table["id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        names = [SHRUNK, "multimem", "clipmem", "cmc_out", "unseen_clipmem"]
        # A file of an earlier version has no shrunk scores; its mitigation asks for none.
        names = [name for name in names if name in table.column_names]
        models = len(run.design.model_ids())
        flat = table["member"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(
            ids[order],
            {name: floats(table[name])[order] for name in names},
            table["misfit"].to_numpy()[order],
            table["listed"].to_numpy()[order].astype(bool),
            flat.astype(bool).reshape(-1, models)[order],
            _BY_SHARD in (table.schema.metadata or {}),
        )

    def rows(self, ids: Hashes) -> NDArray[np.int64]:
        """(K,) rows of these samples; -1 for those that are not there."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def suspicion(self, config: MitigationConfig, number: int, epoch: int) -> Floats:
        """(N,) suspicion of each member of a model, from what is known without running it.

        NaN for samples that the model does not train on, or that have no such score.
        """
        if config.by == "random":
            # Not a hash of the key, which also decides about membership.
            suspicion = _noise(self.ids, seed_of(config.seed, "mitigation", number, epoch))
        elif config.by == "list":
            suspicion = np.where(self.listed, 0.0, np.nan)
        elif config.by == "cmc_out":
            suspicion = -self.scores["cmc_out"]
        else:
            suspicion = self.scores[config.by]
        return np.where(self.member[:, number], suspicion, np.nan)


def prepare_references(run: Run, progress: Progress, shards: Sequence[FileInfo] = ()) -> None:
    """Write what the references know, unless it is there; nothing without a mitigation.

    Args:
        shards: What is trained on: a reference that scored none of it is refused.

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
    table, place = ScoreTable(mitigation.references, storage), "mitigation.references"
    _check(run, table)
    samples = mitigation.samples
    listed = read_keys(samples, storage, parts=run.shard_parts) if samples else None
    names = {*_COLUMNS, *(f"unseen_{m}" for m in run.modalities)}
    columns = [c for c in table.columns if c in names or c.startswith(CLIPMEM)]
    pairs = [name for name in columns if name.startswith(CLIPMEM)]
    by_shard, ranks_by = keys_repeat(run, table), table.verdict.ranks_by
    if mitigation.by == SHRUNK != ranks_by:
        progress.say(
            f"{mitigation.references} has no shrunk scores: samples are chosen by MultiMem"
        )
    with progress.task("references", len(table.score_files), unit="files") as shown:
        batches = table.batches(columns, progress=lambda done, _: shown.update(done))
        parts, examples = [], list[str]()
        for batch in batches:
            parts.append(
                _reference_rows(run, batch, _sum(batch, pairs), ranks_by, listed, by_shard)
            )
            examples += batch["key"].slice(0, EXAMPLES - len(examples)).to_pylist()
    whole = pa.Table.from_batches(parts, schema=schema(len(run.design.model_ids())))
    if listed is not None:
        _require_listed(listed, whole, f"mitigation.samples: {samples}", table.output, progress)
    known = KeyList(np.unique(whole["id"].to_numpy()), by_shard, run.shard_parts, tuple(examples))
    said = require_met(known, shards, storage, place) if shards else None
    if said is not None:
        progress.say(f"warning: {said}")
    if by_shard:
        whole = whole.replace_schema_metadata({_BY_SHARD: b"1"})
    buffer = io.BytesIO()
    pq.write_table(whole, buffer, compression="zstd")
    storage.write_atomic(url, buffer.getvalue())


def _require_listed(
    listed: KeyList, whole: pa.Table, where: str, references: str, progress: Progress
) -> None:
    """Say that few of a list are scored; refuse one of which none is."""
    met, of = int(pc.sum(whole["listed"]).as_py() or 0), len(whole)
    if not met:
        raise ConfigError(
            f"{where}: none of its {len(listed)} samples is scored in {references}; it has "
            f"{listed.named()}"
        )
    if few_met(listed, met, of):
        progress.say(
            f"warning: {where}: few of its {len(listed)} samples are scored in {references}: {met} "
            f"of the {of} there; it has {listed.named()}"
        )


def _reference_rows(
    run: Run,
    batch: pa.RecordBatch,
    clipmem: NDArray[np.float64],
    ranks_by: str,
    listed: KeyList | None,
    by_shard: bool,
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
        pa.array(hashed(keys, [run.shard_name(s) for s in shards] if by_shard else None)),
        pa.array(floats(batch[ranks_by])),
        pa.array(floats(batch["multimem"])),
        pa.array(clipmem),
        pa.array(floats(batch["cmc_out"])),
        pa.array(floats(batch["unseen_clipmem"])),
        pa.array(misfit.astype(np.int8)),
        pa.array(_listed(listed, shards, keys)),
        pa.FixedSizeListArray.from_arrays(pa.array(member.reshape(-1)), models),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema(models))


def keys_repeat(run: Run, table: ScoreTable) -> bool:
    """Whether two scored samples have one key, so that the shard belongs to what they are."""
    if run.shard_parts > 1:
        return True
    seen = [hashed(batch["key"].to_pylist()) for batch in table.batches(["key"])]
    every = np.concatenate(seen) if seen else np.empty(0, np.uint64)
    return len(np.unique(every)) < len(every)


def _listed(listed: KeyList | None, shards: list[str], keys: list[str]) -> NDArray[Any]:
    flags = np.zeros(len(keys), bool)
    if listed is None:
        return flags
    for shard in set(shards):
        rows = np.array([s == shard for s in shards])
        own = [key for key, here in zip(keys, rows, strict=True) if here]
        flags[rows] = listed.contains(own, shard)
    return flags


def _sum(batch: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.float64]:
    """(N,) sum of what is defined; NaN where nothing is."""
    values = np.stack([floats(batch[name]) for name in columns], axis=1)
    return np.where(np.isnan(values).all(axis=1), np.nan, np.nansum(values, axis=1))


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
        theirs = design.get("group") or "key"
        raise ConfigError(f"{place} groups samples by {theirs}: set design.group to {theirs}")
    if run.config.design.group == CONTENT and content["fields"] != dict(run.fields):
        raise ConfigError(
            f"{place} groups samples by the content of other fields: set data.fields as there, or "
            "design.group to key in both"
        )
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
    sections = {
        "design": ("kind", "seed", "candidate_fraction", "pool", "pool_shards"),
        "held_out": ("fraction",),
        "model": ("preset", "adapter", "dim", "towers"),
    }
    for section, names in sections.items():
        for name in names:
            if theirs[section].get(name) != own[section][name]:
                raise ConfigError(
                    f"{place}: its {section}.{name} is {theirs[section].get(name)!r} and here "
                    f"{own[section][name]!r}; post_training goes on with the very models of it"
                )
    if theirs["design"]["models"] < run.config.design.models:
        raise ConfigError(f"{place} has {theirs['design']['models']} models; ask for no more")


def _noise(ids: Hashes, seed: int) -> Floats:
    """A number in [0, 1) for each id: splitmix64 (Steele et al. 2014) of it and the seed."""
    with np.errstate(over="ignore"):
        z = ids + np.uint64(seed % (1 << 64))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
