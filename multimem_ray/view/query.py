"""What a visitor asks for, from the fields of a form: filters, order and place in the list.

A page starts behind (or ends before) a row, not at a number of rows: however far down the list it
is, DuckDB keeps no more rows than a page has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from multimem_ray.errors import ConfigError
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import largest_first, quoted, require_number
from multimem_ray.results.verdict import HIGH, LOW, Q
from multimem_ray.store.schema import UNSEEN

PAGE_ROWS, MOST_ROWS, TEXT = 50, 200, 200
INTERVALS = {
    "above": f"{LOW} > 0",
    "noise": f"{LOW} <= 0 AND {HIGH} >= 0",
    "below": f"{HIGH} < 0",
}
PICKED = {"yes": "SEMI JOIN", "no": "ANTI JOIN"}

Place = tuple[float | None, str, str]
"""Score, shard and key of a row."""


@dataclass(frozen=True)
class Question:
    """One page of the list.

    Attributes:
        by: Score column that orders, and that ``least`` and ``most`` bound.
        down: Whether the highest come first.
        least, most: Bounds of ``by``; None: none.
        interval: A key of ``INTERVALS``, or "".
        q: Largest q-value.
        label, group: Exactly this one.
        has: A modality that the sample has.
        misfit: The modality that fits the others least, for models that never saw the sample.
        text: Stands in the key or the label, in any case.
        picked: ``yes`` or ``no``, or "".
        after, before: The row that the page starts behind, or ends before.
        rows: Most rows of the page.
    """

    by: str
    down: bool = True
    least: float | None = None
    most: float | None = None
    interval: str = ""
    q: float | None = None
    label: str = ""
    group: str = ""
    has: str = ""
    misfit: str = ""
    text: str = ""
    picked: str = ""
    after: Place | None = None
    before: Place | None = None
    rows: int = PAGE_ROWS

    @classmethod
    def read(cls, form: Mapping[str, str], table: ScoreTable) -> Question:
        """What a form asks for; fields that are empty or absent ask for nothing.

        Raises:
            ConfigError: A field holds what it cannot; says which and what it takes.
        """
        by = form.get("by") or table.verdict.ranks_by
        require_number(table, by)
        order = _one_of(form, "order", ("high", "low"))
        return cls(
            by=by,
            down=largest_first(by) if not order else order == "high",
            least=_number(form, "least"),
            most=_number(form, "most"),
            interval=_one_of(form, "interval", INTERVALS),
            q=_number(form, "q"),
            label=form.get("label", ""),
            group=form.get("group", ""),
            has=_one_of(form, "has", table.modalities),
            misfit=_one_of(form, "misfit", table.modalities),
            text=form.get("text", "").strip()[:TEXT],
            picked=_one_of(form, "picked", PICKED),
            after=_place(form, "after"),
            before=_place(form, "before"),
        )


@dataclass
class Condition:
    """Parts of a WHERE clause, the values they name, and joins."""

    parts: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    joins: list[str] = field(default_factory=list)

    def add(self, sql: str, **values: Any) -> None:
        """One more condition."""
        self.parts.append(f"({sql})")
        self.values |= values

    @property
    def sql(self) -> str:
        """Joins and the WHERE clause."""
        where = f" WHERE {' AND '.join(self.parts)}" if self.parts else ""
        return " ".join(self.joins) + where


def condition(asked: Question, table: ScoreTable) -> Condition:
    """What a row must be to be listed, wherever the page starts.

    Raises:
        ConfigError: A column that the question needs is not there.
    """
    made, by = Condition(), quoted(asked.by)
    if asked.least is not None:
        made.add(f"{by} >= $least", least=asked.least)
    if asked.most is not None:
        made.add(f"{by} <= $most", most=asked.most)
    if asked.interval:
        made.add(INTERVALS[asked.interval])
    if asked.q is not None:
        made.add(f"{Q} <= $q", q=asked.q)
    if asked.label:
        made.add("label = $label", label=asked.label)
    if asked.group:
        table.require("group")
        made.add('"group" = $group', group=asked.group)
    if asked.has:
        made.add("list_contains(modalities, $has)", has=asked.has)
    if asked.misfit:
        made.add(f"{misfit(table)} = $misfit", misfit=asked.misfit)
    if asked.text:
        made.add(
            "contains(lower(key), $text) OR contains(lower(label), $text)", text=asked.text.lower()
        )
    if asked.picked:
        made.joins.append(f"{PICKED[asked.picked]} picked USING (shard, key)")
    return made


def misfit(table: ScoreTable) -> str:
    """SQL of the modality that fits the others least for models that never saw the sample.

    NULL with fewer than three, as in :func:`multimem_ray.report.why.misfit`.
    """
    names = [name for name in table.modalities if f"{UNSEEN}{name}" in table.columns]
    if len(names) < 3:
        return "NULL::VARCHAR"
    columns = [quoted(f"{UNSEEN}{name}") for name in names]
    least = f"least({', '.join(columns)})"  # passes over what is NULL
    whens = " ".join(
        f"WHEN {column} = {least} THEN {_text(name)}"
        for column, name in zip(columns, names, strict=True)
    )
    there = " + ".join(f"({column} IS NOT NULL)::INT" for column in columns)
    return f"CASE WHEN {there} < 3 THEN NULL {whens} END"


def beside(place: Place, by: str, down: bool, *, behind: bool) -> Condition:
    """The rows behind a place, or before it; rows without the score come last, then shard and key.

    Args:
        place: Of a row.
        by: The score that orders.
        down: Whether the highest come first.
        behind: Which side.
    """
    made, score = Condition(), quoted(by)
    value, shard, key = place
    same = f"(shard, key) {'>' if behind else '<'} ($shard, $key)"
    if value is None:
        sql = f"{score} IS NULL AND {same}" if behind else f"{score} IS NOT NULL OR {same}"
        made.add(sql, shard=shard, key=key)
        return made
    sql = f"{score} {'<' if down is behind else '>'} $place OR ({score} = $place AND {same})"
    if behind:
        sql += f" OR {score} IS NULL"
    made.add(sql, place=value, shard=shard, key=key)
    return made


def ordered(by: str, down: bool, backwards: bool = False) -> str:
    """The ORDER BY clause."""
    falls = down is not backwards
    last = "FIRST" if backwards else "LAST"
    way = "DESC" if backwards else "ASC"
    return (
        f" ORDER BY {quoted(by)} {'DESC' if falls else 'ASC'} NULLS {last}, shard {way}, key {way}"
    )


def place_of(row: Mapping[str, Any], by: str) -> str:
    """A row's place, as ``after`` and ``before`` take it."""
    return json.dumps([row[by], row["shard"], row["key"]])


def score_columns(table: ScoreTable) -> list[str]:
    """Columns that a list can be ordered by."""
    return [
        f.name
        for f in table.schema
        if pa.types.is_floating(f.type) or (pa.types.is_integer(f.type) and f.name != "index")
    ]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _number(form: Mapping[str, str], name: str) -> float | None:
    given = form.get(name, "").strip().replace("−", "-")
    if not given:
        return None
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name}: '{given[:40]}' is no number; write one such as 0.05")
    return value


def _one_of(form: Mapping[str, str], name: str, known: Any) -> str:
    given = form.get(name, "")
    if given and given not in known:
        raise ConfigError(f"{name}: '{given[:40]}' is none of {', '.join(known)}")
    return given


def _place(form: Mapping[str, str], name: str) -> Place | None:
    given = form.get(name, "")
    if not given:
        return None
    try:
        value, shard, key = json.loads(given)
        score = None if value is None else float(value)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name}: no place in the list; start from its first page") from error
    if not isinstance(shard, str) or not isinstance(key, str):
        raise ConfigError(f"{name}: no place in the list; start from its first page")
    return score, shard, key
