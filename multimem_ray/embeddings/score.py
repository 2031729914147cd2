"""A unit of stored embeddings: checked, compared with the held-out set, scored.

Each sample is scored, held out, or a failure with its reason: a key that comes twice, a modality
that only some models have, a vector of another length, of length 0, or not finite.

Stored vectors come as one block of numbers per modality, of whatever length. Rather than to copy
and normalise them, their dot products are divided by their lengths:

    alignment[j, k]  = E_v [ x_j · x_k / (|x_j| |x_k|) ]
    uniformity[j, k] = E_v [ x_j · m_k / |x_j| ]

Products are taken in float32, where reading from memory is what limits them, and everything after
in float64; for normalised float32 vectors of 1024 numbers that is within 1e-6 of float64
throughout.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from multimem_ray.embeddings import layout
from multimem_ray.embeddings.align import Rows, UnitReader, Vectors
from multimem_ray.embeddings.units import Unit
from multimem_ray.metric import Agreement
from multimem_ray.run import Run
from multimem_ray.sample import Failure
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import Identity, IdentityRow, schema_of, score_rows
from multimem_ray.scoring.shard import ScoredShard, joined_tables
from multimem_ray.store.commits import Receipt
from multimem_ray.store.schema import error_rows

TABLE_ROWS = 8192
"""Samples whose scores are made in one go."""


@dataclass(frozen=True)
class StoredAgreement:
    """Matrices of B samples under one model, as yet with nothing masked.

    Attributes:
        alignment: (B, n, n) float64.
        uniformity: (B, n, n) float64.
        lengths: (B, n) float64, the shortest |x| of the views; NaN or 0 where one is of no use.
        cmc_by_view: (V, B) float64, consistency of the modalities that are present.
    """

    alignment: NDArray[np.float64]
    uniformity: NDArray[np.float64]
    lengths: NDArray[np.float64]
    cmc_by_view: NDArray[np.float64]


def stored_agreement(
    vectors: Sequence[NDArray[np.float32]],
    views: int,
    means: NDArray[Any],
    present: NDArray[np.bool_],
) -> StoredAgreement:
    """Agreement of stored vectors.

    Args:
        vectors: Per modality (B, V * d), view after view.
        means: (n, at least d), held-out mean vectors of the model; beyond d they are padding.
        present: (B, n), which modalities the samples have.
    """
    size, n = len(vectors[0]), len(vectors)
    dim = vectors[0].shape[1] // views
    seen = [np.ascontiguousarray(x).reshape(size * views, dim) for x in vectors]
    towards = np.ascontiguousarray(means[:, :dim], dtype=np.float32)
    alignment = np.ones((size, n, n))
    uniformity = np.empty((size, n, n))
    lengths = np.empty((size, n))
    # An absent modality is left out of the sums; its vectors may hold anything.
    by_view = np.repeat(present.sum(axis=1)[:, None] / 2, views, axis=1)
    with np.errstate(all="ignore"):
        inverse = []
        for j, x in enumerate(seen):
            length = np.sqrt(np.vecdot(x, x).astype(np.float64))
            lengths[:, j] = length.reshape(size, views).min(axis=1)
            inverse.append(1.0 / length)
        for j, x in enumerate(seen):
            for k in range(n):
                cosine = np.vecdot(x, towards[k]) * inverse[j]
                of_views = cosine.reshape(size, views)
                uniformity[:, j, k] = of_views.mean(axis=1)
                both = (present[:, j] & present[:, k])[:, None]
                np.subtract(by_view, of_views / 2, out=by_view, where=both)
            for k in range(j + 1, n):
                cosine = np.vecdot(x, seen[k]) * inverse[j] * inverse[k]
                of_views = cosine.reshape(size, views)
                alignment[:, j, k] = alignment[:, k, j] = of_views.mean(axis=1)
                both = (present[:, j] & present[:, k])[:, None]
                np.add(by_view, of_views, out=by_view, where=both)
    return StoredAgreement(alignment, uniformity, lengths, by_view.T)


@dataclass(frozen=True)
class _Compared:
    """Samples to be scored, and their matrices under every model."""

    who: list[IdentityRow]
    present: NDArray[np.bool_]
    alignment: NDArray[np.float64]
    uniformity: NDArray[np.float64]
    by_view: list[NDArray[np.float64]]


def score_unit(reader: UnitReader, held_out: HeldOutStatistics, unit: Unit) -> ScoredShard:
    """Score every sample of a unit that is not held out.

    Args:
        held_out: Mean vectors of the held-out set, and with a target its levels.
    """
    started, run, url = time.monotonic(), reader.run, unit.info.url
    means, tables, failures = held_out.means.numpy(), list[pa.Table](), list[Failure]()
    waiting, left_out = list[_Compared](), 0
    for rows in reader.rows(unit):
        if isinstance(rows, list):
            failures += rows
            continue
        compared, failed = _compared(reader, means, unit, rows)
        failures += failed
        left_out += len(rows.keys) - len(compared.who) - len(failed)
        if compared.who:
            waiting.append(compared)
        if sum(len(one.who) for one in waiting) >= TABLE_ROWS:
            tables.append(_table(run, url, waiting, held_out))
            waiting = []
    if waiting:
        tables.append(_table(run, url, waiting, held_out))
    scores = joined_tables(schema_of(run), tables)
    seconds = time.monotonic() - started
    receipt = Receipt(url, scores.num_rows, left_out, len(failures), seconds)
    return ScoredShard(receipt, scores, error_rows(failures))


def _compared(
    reader: UnitReader, means: NDArray[Any], unit: Unit, rows: Rows
) -> tuple[_Compared, list[Failure]]:
    """Matrices of those that are to be scored; the others are held out or failures."""
    groups, keys, labels = reader.groups(rows), rows.keys.to_pylist(), reader.labels(rows)
    held_out = reader.held_out(rows, groups, unit.info.url)
    vectors = reader.vectors(rows)
    agreements = [
        stored_agreement(of_model.values, views, mean, of_model.present)
        for of_model, views, mean in zip(vectors, reader.units.spec.views, means, strict=True)
    ]
    bad = {
        at: reason
        for at, reason in problems(vectors, agreements, rows.repeated).items()
        if not held_out[at] or reason[0] == "repeated_key"
    }
    keep = ~held_out
    keep[list(bad)] = False
    at, indices = np.flatnonzero(keep), _indices(rows)
    compared = _Compared(
        [(keys[i], int(indices[i]), labels[i], groups[i], None) for i in at.tolist()],
        vectors[0].present[at],
        np.stack([a.alignment[at] for a in agreements]),
        np.stack([a.uniformity[at] for a in agreements]),
        [a.cmc_by_view[:, at] for a in agreements],
    )
    return compared, [_failure(unit, rows, i, *bad[i]) for i in sorted(bad)]


def _indices(rows: Rows) -> NDArray[np.int64]:
    column = rows.column(layout.INDEX)
    if column is not None and not column.null_count and pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.arange(rows.first, rows.first + len(rows.keys))


def problems(
    vectors: Sequence[Vectors], agreements: Sequence[StoredAgreement], repeated: NDArray[np.bool_]
) -> dict[int, tuple[str, str, int]]:
    """Row to kind, words and model of what is wrong with it; the first that is.

    Only a batch in which something is wrong costs more than a look at its masks.
    """
    reasons: dict[int, tuple[str, str, int]] = {}

    def note(wrong: NDArray[np.bool_], kind: str, words: str, model: int) -> None:
        for at in np.flatnonzero(wrong).tolist():
            reasons.setdefault(at, (kind, words, model))

    note(repeated, "repeated_key", "the key came before; the first row is taken", 0)
    present = vectors[0].present
    for number, of_model in enumerate(vectors):
        note(of_model.unfit, "wrong_dim", "a list has another length than the others", number)
        note(
            _any(of_model.present != present),
            "missing_in_model",
            "it has not the modalities of the first model",
            number,
        )
    note(present.sum(axis=1) < 2, "too_few_modalities", "MultiMem needs two modalities", 0)
    for number, agreement in enumerate(agreements):
        lengths = np.where(present, agreement.lengths, 1.0)
        note(_any(~np.isfinite(lengths)), "not_finite", "a vector is NaN or infinite", number)
        note(_any(lengths == 0), "zero_vector", "a vector is 0 and has no direction", number)
    return reasons


def _any(mask: Any) -> NDArray[np.bool_]:
    """(B,) bool, of (B, n)."""
    return np.asarray(np.any(mask, axis=1), dtype=bool)


def _failure(unit: Unit, rows: Rows, at: int, kind: str, words: str, model: int) -> Failure:
    detail = f"{words} (model {model:03d})"
    stage = "select" if kind == "too_few_modalities" else "read"
    return Failure(unit.info.url, rows.keys[at].as_py(), rows.first + at, stage, kind, detail)


def _table(
    run: Run, url: str, compared: Sequence[_Compared], held_out: HeldOutStatistics
) -> pa.Table:
    who = Identity.of([row for one in compared for row in one.who])
    present = torch.from_numpy(np.concatenate([one.present for one in compared]))
    both = present[:, :, None] & present[:, None, :]
    alignment = torch.from_numpy(np.concatenate([one.alignment for one in compared], axis=1))
    uniformity = torch.from_numpy(np.concatenate([one.uniformity for one in compared], axis=1))
    by_view = [
        torch.from_numpy(np.concatenate(parts, axis=1))
        for parts in zip(*(one.by_view for one in compared), strict=True)
    ]
    agreements = [
        Agreement(a.where(both, 0.0), u.where(both, 0.0), views)
        for a, u, views in zip(alignment, uniformity, by_view, strict=True)
    ]
    of_held_out = held_out.levels, held_out.population
    return score_rows(run, url, who, present, agreements, *of_held_out)
