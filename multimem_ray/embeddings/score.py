"""A unit of stored embeddings: checked, compared with the held-out set, scored.

Each sample is scored, held out, or a failure with its reason: a key that comes twice, a modality
that only some models have, a vector of another length, of length 0, or not finite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from multimem_ray.design.key_list import KeyList, read_key_file
from multimem_ray.embeddings import layout
from multimem_ray.embeddings.agreement import StoredAgreement, stored_agreement
from multimem_ray.embeddings.side_by_side import Rows, Vectors, unit_rows, vectors_of
from multimem_ray.embeddings.units import Unit, Units
from multimem_ray.metric import Agreement
from multimem_ray.run import Run
from multimem_ray.sample import Failure
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.rows import Identity, schema_of, score_rows
from multimem_ray.store.commits import Receipt
from multimem_ray.store.schema import error_rows

TABLE_ROWS = 8192
"""Samples whose scores are made in one go."""


class UnitReader:
    """What is to be known of a run on stored embeddings to read its units.

    Args:
        run: The run.
        units: Its units.
    """

    def __init__(self, run: Run, units: Units) -> None:
        self.run, self.units = run, units

    @cached_property
    def _listed(self) -> KeyList | None:
        """The held-out keys, where the user gave a file of them."""
        given = self.run.config.data.embeddings
        if self.units.spec.flagged or given is None or given.held_out is None:
            return None
        field = f"data.embeddings.held_out: '{given.held_out}' is no column"
        return read_key_file(given.held_out, self.run.storage, field)

    def groups(self, rows: Rows) -> list[str]:
        """What membership is decided by: the group, or the key where a sample has none."""
        keys: list[str] = rows.keys.to_pylist()
        column = rows.column(layout.GROUP)
        if column is None:
            return keys
        found = column.to_pylist()
        return [key if own is None else own for key, own in zip(keys, found, strict=True)]

    def labels(self, rows: Rows) -> list[str | None]:
        """The label of each row."""
        column = rows.column(layout.LABEL)
        return [None] * len(rows.keys) if column is None else column.to_pylist()

    def held_out(self, rows: Rows, groups: Sequence[str], url: str) -> NDArray[np.bool_]:
        """(B,) bool: which samples belong to the held-out set."""
        if self.units.spec.flagged:
            column = rows.column(layout.HELD_OUT)
            if column is None:
                return np.zeros(len(groups), bool)
            flags = column.fill_null(False).to_numpy(zero_copy_only=False)
            return np.asarray(flags, dtype=bool)
        if self._listed is not None:
            return self._listed.contains(groups)
        return self.run.held_out_rule.is_held_out(groups, url)

    def parts(self, unit: Unit, *, vectors_too: bool = True) -> Iterator[Rows | list[Failure]]:
        """The rows of a unit; see :func:`unit_rows`."""
        return unit_rows(self.run, self.units, unit, vectors_too=vectors_too)

    def vectors(self, rows: Rows) -> list[Vectors]:
        """Per model, the vectors of some rows."""
        names, widths = self.run.modalities, self.units.spec.widths
        return [
            vectors_of(block, names, width)
            for block, width in zip(rows.blocks, widths, strict=True)
        ]


@dataclass(frozen=True)
class ScoredUnit:
    """What came of a unit, ready to be committed: score rows as Parquet, and failures."""

    receipt: Receipt
    scores: pa.Table
    errors: pa.Table


@dataclass
class _Waiting:
    """Samples whose matrices are there, until there are enough of them to make rows."""

    who: list[Identity]
    present: list[NDArray[np.bool_]]
    alignment: list[NDArray[np.float64]]
    uniformity: list[NDArray[np.float64]]
    rows: int = 0

    @classmethod
    def nothing(cls) -> _Waiting:
        return cls([], [], [], [])


def score_unit(reader: UnitReader, held: HeldOutStatistics, unit: Unit, seconds: Any) -> ScoredUnit:
    """Score every sample of a unit that is not held out.

    Args:
        held: Mean vectors of the held-out set, and with a target its levels.
        seconds: Called at the end for the time it took.
    """
    run, towards = reader.run, held.means.numpy()
    tables, failures = [schema_of(run).empty_table()], list[Failure]()
    waiting, held_out = _Waiting.nothing(), 0
    for part in reader.parts(unit):
        if isinstance(part, list):
            failures += part
            continue
        held_out += _add(reader, towards, unit, part, waiting, failures)
        if waiting.rows >= TABLE_ROWS:
            tables.append(_table(run, unit, waiting, held))
            waiting = _Waiting.nothing()
    if waiting.rows:
        tables.append(_table(run, unit, waiting, held))
    scores = pa.concat_tables(tables)
    receipt = Receipt(unit.info.url, scores.num_rows, held_out, len(failures), seconds())
    return ScoredUnit(receipt, scores, error_rows(failures))


def _add(
    reader: UnitReader,
    towards: NDArray[Any],
    unit: Unit,
    rows: Rows,
    waiting: _Waiting,
    failures: list[Failure],
) -> int:
    """Take the matrices of some rows; returns how many of these are held out."""
    groups = reader.groups(rows)
    chosen = reader.held_out(rows, groups, unit.info.url)
    found = reader.vectors(rows)
    made = [
        stored_agreement(of_model.found, views, means)
        for of_model, views, means in zip(found, reader.units.spec.views, towards, strict=True)
    ]
    reasons = problems(found, made, rows.repeated)
    bad = {
        at: reason
        for at, reason in reasons.items()
        if not chosen[at] or reason[0] == "repeated_key"
    }
    held = chosen.copy()
    held[list(bad)] = False
    failures += [_failure(unit, rows, at, *bad[at]) for at in sorted(bad)]
    keep = ~held
    keep[list(bad)] = False
    at = np.flatnonzero(keep)
    if len(at):
        labels, keys = reader.labels(rows), rows.keys.to_pylist()
        indices = _indices(rows)
        if len(at) == len(keys):
            who = Identity(keys, indices.tolist(), labels, groups)
        else:
            who = Identity(
                [keys[i] for i in at],
                indices[at].tolist(),
                [labels[i] for i in at],
                [groups[i] for i in at],
            )
        waiting.who.append(who)
        waiting.present.append(found[0].present[at])
        waiting.alignment.append(np.stack([a.alignment[at] for a in made]))
        waiting.uniformity.append(np.stack([a.uniformity[at] for a in made]))
        waiting.rows += len(at)
    return int(held.sum())


def _indices(rows: Rows) -> NDArray[np.int64]:
    column = rows.column(layout.INDEX)
    if column is not None and not column.null_count and pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.arange(rows.first, rows.first + len(rows.keys))


def problems(
    found: Sequence[Vectors], made: Sequence[StoredAgreement], repeated: NDArray[np.bool_]
) -> dict[int, tuple[str, str, int]]:
    """Row to kind, words and model of what is wrong with it; the first that is.

    Only a batch in which something is wrong costs more than a look at its masks.
    """
    reasons: dict[int, tuple[str, str, int]] = {}

    def note(wrong: NDArray[np.bool_], kind: str, words: str, model: int) -> None:
        for at in np.flatnonzero(wrong).tolist():
            reasons.setdefault(at, (kind, words, model))

    note(repeated, "repeated_key", "the key came before; the first row is taken", 0)
    present = found[0].present
    for number, of_model in enumerate(found):
        note(of_model.unfit, "wrong_dim", "a list has another length than the others", number)
        note(
            _any(of_model.present != present),
            "missing_in_model",
            "it has not the modalities of the first model",
            number,
        )
    note(present.sum(axis=1) < 2, "too_few_modalities", "MultiMem needs two modalities", 0)
    for number, agreement in enumerate(made):
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


def _table(run: Run, unit: Unit, waiting: _Waiting, held: HeldOutStatistics) -> pa.Table:
    who = Identity(
        [key for own in waiting.who for key in own.keys],
        [index for own in waiting.who for index in own.indices],
        [label for own in waiting.who for label in own.labels],
        [group for own in waiting.who for group in own.groups],
    )
    present = torch.from_numpy(np.concatenate(waiting.present))
    both = present[:, :, None] & present[:, None, :]
    alignment = torch.from_numpy(np.concatenate(waiting.alignment, axis=1))
    uniformity = torch.from_numpy(np.concatenate(waiting.uniformity, axis=1))
    agreements = [
        Agreement(a.where(both, 0.0), u.where(both, 0.0))
        for a, u in zip(alignment, uniformity, strict=True)
    ]
    return score_rows(run, unit.info.url, who, present, agreements, held.levels)
