"""How well do the scores find misalignment that was planted on purpose?

A copy of the shards in which a known few samples got a modality of another sample comes with its
truth in Parquet. Joined with the scores by shard name and key, it tells which score finds them:
MultiMem, the consistency under models that never saw the sample, or what people use today, the
consistency under one model that did.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from multimem_ray.arrow_files import ParquetFile
from multimem_ray.errors import ConfigError
from multimem_ray.results.accumulate import Floats
from multimem_ray.results.arrays import floats, lists
from multimem_ray.results.auroc import Bools, auroc, curve, precision
from multimem_ray.results.reader import ScoreTable
from multimem_ray.storage import Storage

METHODS = ("multimem", "cmc_out", "one_model")
FIXED_KS = (10, 50, 100)


@dataclass(frozen=True)
class Truth:
    """Planted samples by a 64-bit hash of shard name and key, sorted by it.

    Sixteen bytes a sample: names are not kept.
    """

    ids: npt.NDArray[np.uint64]
    planted: Bools
    modality: npt.NDArray[np.int16]  # place in ``modalities``; -1 where nothing was planted
    modalities: tuple[str, ...]

    def find(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Rows of the truth with these ids; -1 for those it does not list."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1)


def evaluate_planted(table: ScoreTable, truth_url: str) -> dict[str, Any]:
    """AUROC and precision at k of each score against the truth.

    Args:
        table: The scores of a run.
        truth_url: Parquet with at least ``shard``, ``key`` and ``planted``, and ``modality``.

    Returns:
        ``samples`` (scored, in the truth, and with every score defined), ``planted`` among them,
        ``unmatched`` scored samples that the truth does not list, and per method ``auroc`` with
        its interval, ``precision``, ``roc`` points and ``by_modality``. All methods are judged on
        the same samples. A score that no sample has is reported as None.

    Raises:
        ConfigError: The truth has not the columns, or lists none of the scored samples.
        StorageError: The truth cannot be read.
    """
    truth = read_truth(truth_url, table.storage)
    scores, rows = _suspicions(table, truth)
    listed = rows >= 0
    if len(rows) and not listed.any():
        raise ConfigError(
            f"data.planted: {truth_url} lists none of the {len(rows)} scored samples; it must be "
            "the planted.parquet that was written with these shards"
        )
    methods = [m for m in METHODS if (listed & ~np.isnan(scores[m])).any()]
    common = listed.copy()
    for method in methods:
        common &= ~np.isnan(scores[method])
    found = rows[common]
    planted, modality = truth.planted[found], truth.modality[found]
    result: dict[str, Any] = {
        "samples": int(common.sum()),
        "planted": int(planted.sum()),
        "unmatched": int(len(rows) - listed.sum()),
        "methods": {},
    }
    for method in METHODS:
        suspicion = scores[method][common]
        result["methods"][method] = (
            _judge(planted, modality, truth.modalities, suspicion) if method in methods else None
        )
    return result


def read_truth(url: str, storage: Storage) -> Truth:
    """Read ``planted.parquet``, keeping only hashes and codes.

    Raises:
        ConfigError: It is no Parquet, or a column is missing.
        StorageError: It cannot be read.
    """
    ids: list[npt.NDArray[np.uint64]] = []
    flags: list[Bools] = []
    codes: list[npt.NDArray[np.int16]] = []
    names: dict[str, int] = {}
    try:
        with storage.open(url) as file:
            parquet = ParquetFile(file, url)
            known = set(parquet.schema_arrow.names)
            if absent := {"shard", "key", "planted"} - known:
                raise ConfigError(
                    f"data.planted: {url} has no column {', '.join(sorted(absent))}; it must be "
                    "the planted.parquet that `multimem plant` wrote"
                )
            wanted = [c for c in ("shard", "key", "planted", "modality") if c in known]
            for batch in parquet.iter_batches(columns=wanted):
                ids.append(sample_ids(storage, batch))
                flags.append(np.array([bool(v) for v in batch["planted"].to_pylist()], bool))
                codes.append(_codes(batch, flags[-1], names))
    except pa.ArrowInvalid as error:
        raise ConfigError(f"data.planted: {url} is not a Parquet file: {error}") from error
    if not ids:
        return Truth(np.empty(0, np.uint64), np.empty(0, bool), np.empty(0, np.int16), ())
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    return Truth(
        every[order], np.concatenate(flags)[order], np.concatenate(codes)[order], tuple(names)
    )


def sample_ids(storage: Storage, batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of (shard's file name, key) per row: shards may have moved since planting."""
    shards = batch["shard"].to_pylist()
    base = {shard: storage.name(shard).encode() for shard in set(shards)}
    digests = b"".join(
        hashlib.blake2b(base[shard] + b"\0" + key.encode(), digest_size=8).digest()
        for shard, key in zip(shards, batch["key"].to_pylist(), strict=True)
    )
    return np.frombuffer(digests, dtype=np.uint64)


def _codes(batch: pa.RecordBatch, planted: Bools, names: dict[str, int]) -> npt.NDArray[np.int16]:
    codes = np.full(batch.num_rows, -1, np.int16)
    if "modality" in batch.schema.names:
        for row, name in enumerate(batch["modality"].to_pylist()):
            if planted[row] and name is not None:
                codes[row] = names.setdefault(str(name), len(names))
    return codes


def _suspicions(table: ScoreTable, truth: Truth) -> tuple[dict[str, Floats], npt.NDArray[np.int64]]:
    """Suspicion of every scored sample by each method, and its row in the truth."""
    parts: dict[str, list[Floats]] = {method: [np.empty(0)] for method in METHODS}
    rows: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    columns = ["shard", "key", "multimem", "cmc_in", "cmc_out", "cmc", "member"]
    for batch in table.batches(columns):
        rows.append(truth.find(sample_ids(table.storage, batch)))
        parts["multimem"].append(floats(batch["multimem"]))
        parts["cmc_out"].append(-floats(batch["cmc_out"]))
        if "gap" in table.columns:  # the one model that people would filter by is the target
            parts["one_model"].append(-floats(batch["cmc_in"]))
        else:
            parts["one_model"].append(-first_seen(lists(batch["cmc"]), lists(batch["member"])))
    return {name: np.concatenate(part) for name, part in parts.items()}, np.concatenate(rows)


def first_seen(cmc: Floats, member: Floats) -> Floats:
    """Consistency under the first model that saw each sample, (N,); NaN if none did."""
    if not cmc.shape[1]:
        return np.full(len(cmc), np.nan)
    saw = member == 1.0
    first = saw.argmax(axis=1)
    value = np.take_along_axis(cmc, first[:, None], axis=1)[:, 0]
    return np.where(saw.any(axis=1), value, np.nan)


def _judge(
    planted: Bools,
    modality: npt.NDArray[np.int16],
    names: tuple[str, ...],
    suspicion: Floats,
) -> dict[str, Any]:
    by_modality = []
    for code, name in enumerate(names):
        keep = ~planted | (modality == code)
        count = int((modality == code).sum())
        if count:
            by_modality.append(
                {"modality": name, "planted": count, **auroc(planted[keep], suspicion[keep])}
            )
    return {
        **auroc(planted, suspicion),
        "precision": precision(planted, suspicion, {int(planted.sum()), *FIXED_KS}),
        "roc": curve(planted, suspicion),
        "by_modality": sorted(by_modality, key=lambda row: row["modality"]),
    }
