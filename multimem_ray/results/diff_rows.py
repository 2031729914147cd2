"""Samples of two runs side by side: joined by what they are called, with what was not met.

A sample is known by the name of its shard (the shortest tail of the path that tells the shards of
either run apart) and its key; where one of them knows no shards, by the key alone. Its place may
differ, for shards that were rewritten without some samples count anew. A sample of that name with
another content is another sample: it is counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.results.table import BATCH_ROWS, ScoreTable, open_engine
from multimem_ray.results.verdict import ERROR
from multimem_ray.store.schema import SCORE

EXAMPLES = 3
_COLUMNS = ("key", "shard", "index", "group", SCORE, ERROR)


@dataclass
class Missed:
    """Samples of one kind that are left out, and the first of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, names: pa.Array) -> None:
        """Count some more; examples are the first by name, whatever the order."""
        self.count += len(names)
        self.examples = sorted({*self.examples, *names.to_pylist()})[:EXAMPLES]

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        return {"count": self.count, "examples": self.examples}


@dataclass
class JoinedRuns:
    """Two runs, joined.

    Args:
        a: The scores of one run.
        b: Those of the other.
    """

    a: ScoreTable
    b: ScoreTable
    rows: int = 0
    a_alone: Missed = field(default_factory=Missed)
    b_alone: Missed = field(default_factory=Missed)
    changed: Missed = field(default_factory=Missed)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Rows that both runs have: ``key``, ``shard`` (of b), ``a_shard``, ``index``, ``a_index``,
        ``group`` (of b), ``a``, ``a_error``, ``b``, ``b_error``.

        Raises:
            ConfigError: Nothing is scored in one of them, or they have no sample in common.
            StorageError: A file cannot be read.
        """
        for table in (self.a, self.b):
            if not table.score_files:
                raise ConfigError(f"{table.output}: nothing is scored yet")
        by_content = all(_by_content(table) for table in (self.a, self.b))
        try:
            with open_engine() as engine:
                for name, table in (("a", self.a), ("b", self.b)):
                    engine.register(f"scores_{name}", table.relation(engine, _COLUMNS))
                answer = engine.sql(self._sql()).to_arrow_reader(BATCH_ROWS)
                for batch in answer:
                    yield self._met(batch, by_content)
        except duckdb.Error as error:
            told = f"{self.a.output} and {self.b.output} cannot be joined ({error})"
            raise StorageError(told) from error
        if not self.rows:
            raise ConfigError(self._none_met())

    def _met(self, batch: pa.RecordBatch, by_content: bool) -> pa.RecordBatch:
        """Of a part of the join what both have; the rest is counted."""
        here, there = pc.is_valid(batch["key"]), pc.is_valid(batch["a_key"])
        self.a_alone.add(batch.filter(pc.invert(here))["a_name"])
        self.b_alone.add(batch.filter(pc.invert(there))["b_name"])
        both = batch.filter(pc.and_(here, there))
        if by_content:
            same = pc.fill_null(pc.equal(both["group"], both["a_group"]), True)
            self.changed.add(both.filter(pc.invert(same))["b_name"])
            both = both.filter(same)
        self.rows += len(both)
        return both.drop_columns(["a_key", "a_group", "a_name", "b_name"])

    def _sql(self) -> str:
        parts = max(self.a.shard_parts, self.b.shard_parts)
        named = all(_knows_shards(table) for table in (self.a, self.b))
        path = "string_split(rtrim(shard, '/'), '/')"
        tail = f"array_to_string(list_slice({path}, -{parts}, -1), '/')"
        place = tail if named else "''"
        name = f"concat_ws(': ', {tail}, key)"
        sides = {
            side: f"SELECT *, {place} AS place, {name} AS name FROM scores_{side}"
            for side in ("a", "b")
        }
        return f"""
        SELECT b.key AS key, b.shard AS shard, a.shard AS a_shard, b.index AS index,
               a.index AS a_index, b."group" AS "group", a."group" AS a_group, a.key AS a_key,
               a.name AS a_name, b.name AS b_name,
               a.{SCORE} AS a, a.{ERROR} AS a_error, b.{SCORE} AS b, b.{ERROR} AS b_error
        FROM ({sides["a"]}) AS a FULL OUTER JOIN ({sides["b"]}) AS b
        ON a.key = b.key AND a.place = b.place
        """

    def _none_met(self) -> str:
        if self.changed.count:
            told = f"all {self.changed.count} samples of one name have another content"
            return f"{self.a.output} and {self.b.output} have no sample in common: {told}"
        known = (f"{run.output} has {', '.join(missed.examples)}" for run, missed in self._alone)
        return f"the runs have no sample in common: {'; '.join(known)}"

    @property
    def _alone(self) -> list[tuple[ScoreTable, Missed]]:
        return [(self.a, self.a_alone), (self.b, self.b_alone)]


def _by_content(table: ScoreTable) -> bool:
    design = (table.document("run.json").get("config") or {}).get("design") or {}
    return design.get("group") == "content"


def _knows_shards(table: ScoreTable) -> bool:
    (row,) = table.query("SELECT count(shard) AS shards FROM scores LIMIT 1", ["shard"])
    return bool(row["shards"])
