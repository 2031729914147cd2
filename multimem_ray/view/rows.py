"""The scored samples of a run as DuckDB answers page after page, from one engine that stays open.

Files on a disk are asked as they lie: their footers are read once and kept, and row groups that
cannot matter are left out. Those of an object store are read once into a table that DuckDB keeps in
temporary files beyond its memory. What is committed while the page is open is not seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Self

import duckdb
import pyarrow as pa

from multimem_ray.design.shard_names import tail
from multimem_ray.errors import StorageError
from multimem_ray.results.table import ScoreTable, open_engine
from multimem_ray.results.top import quoted
from multimem_ray.results.verdict import DERIVED
from multimem_ray.store.schema import SCORE
from multimem_ray.store.tables import read_duplicates
from multimem_ray.view.query import (
    Condition,
    Question,
    beside,
    condition,
    misfit,
    ordered,
)

MEMORY = "900MB"  # of DuckDB: the whole page is to take less than 1.5 GB
Row = dict[str, Any]
Named = tuple[str, str]
"""Shard and key of a sample."""
SHOWN = ("key", "shard", "index", "label", "modalities", "multimem", "cmc_in", "cmc_out")


class Rows:
    """Pages of a run's rows; several threads may ask.

    Args:
        table: The scores; there must be some.

    Raises:
        StorageError: A file of the run cannot be read, or is not what its marker says.
    """

    def __init__(self, table: ScoreTable) -> None:
        self.table, self._lock = table, threading.Lock()
        self._stack = ExitStack()
        self._engine = self._stack.enter_context(open_engine())
        self._engine.execute(f"SET memory_limit = '{MEMORY}'")
        self._engine.execute("SET parquet_metadata_cache = true")
        self._engine.execute("CREATE TABLE picked (shard VARCHAR, key VARCHAR)")
        self._read_duplicates()
        rows = table.relation(self._engine)
        if table.storage.is_remote(table.output):
            rows.create("scores")
        else:
            rows.create_view("scores")
        self.count = lru_cache(64)(self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def page(self, asked: Question) -> tuple[list[Row], bool, bool]:
        """Rows of a page, whether there are rows before it, and whether behind it.

        Raises:
            ConfigError: The question cannot be answered; says which field of it.
            StorageError: A file cannot be read.
        """
        made, backwards = condition(asked, self.table), asked.before is not None
        for place, behind in ((asked.after, True), (asked.before, False)):
            if place is not None:
                cut = beside(place, asked.by, asked.down, behind=behind)
                made.add(" AND ".join(cut.parts), **cut.values)
        self._narrow(asked, made)
        columns = ", ".join(map(quoted, self._listed(asked.by)))
        rows = self._ask(
            f"SELECT {columns}, {misfit(self.table)} AS misfit FROM scores {made.sql}"
            f"{ordered(asked.by, asked.down, backwards)} LIMIT {asked.rows + 1}",
            made,
        )
        more, rows = len(rows) > asked.rows, rows[: asked.rows]
        if backwards:
            return rows[::-1], more, True
        return rows, asked.after is not None, more

    def _narrow(self, asked: Question, made: Condition) -> None:
        """Bound a page by the score that files are ordered by: most row groups are left out.

        What another score puts on the page is found from numbers alone; text is read of what lies
        between the bounds.
        """
        place = asked.before or asked.after
        if asked.by == SCORE or (place is not None and place[0] is None):
            return
        falls, by = asked.down is (asked.before is None), quoted(asked.by)
        numbers = condition(asked, self.table)
        numbers.add(f"{by} IS NOT NULL")
        if place is not None:
            numbers.add(f"{by} {'<' if falls else '>'} $further", further=place[0])
        ends = self._ask(
            f"SELECT {by} AS score FROM scores {numbers.sql} ORDER BY 1 "
            f"{'DESC' if falls else 'ASC'} LIMIT {asked.rows + 1}",
            numbers,
        )
        if len(ends) <= asked.rows:
            return
        reached = condition(asked, self.table)
        # Rows of the place's own score may still belong to the page.
        reached.add(f"{by} {'>=' if falls else '<='} $end", end=ends[-1]["score"])
        if place is not None:
            reached.add(f"{by} {'<=' if falls else '>='} $start", start=place[0])
        (span,) = self._ask(
            f"SELECT min({SCORE}) AS low, max({SCORE}) AS high, "
            f"count(*) - count({SCORE}) AS without FROM scores {reached.sql}",
            reached,
        )
        if not span["without"]:
            made.add(f"{SCORE} BETWEEN $low AND $high", low=span["low"], high=span["high"])

    def sample(self, shard: str, key: str) -> Row | None:
        """Every column of one sample; None if there is none such."""
        made = Condition()
        made.add("shard = $shard AND key = $key", shard=shard, key=key)
        sql = f"SELECT *, {misfit(self.table)} AS misfit FROM scores {made.sql} LIMIT 1"
        return next(iter(self._ask(sql, made)), None)

    def group(self, name: str, most: int) -> list[Row]:
        """Samples that were trained on and left out together."""
        made = Condition()
        made.add('"group" = $group', group=name)
        sql = f"SELECT shard, key, multimem FROM scores {made.sql} ORDER BY shard, key LIMIT {most}"
        return self._ask(sql, made)

    def duplicates(self, shard: str, key: str, most: int) -> list[Row]:
        """Scored samples of its group of near-duplicates, as ``multimem duplicates`` found them."""
        made = Condition(values={"name": tail(shard, self.table.shard_parts), "key": key})
        sql = (
            'SELECT shard, key FROM duplicates WHERE "group" IN '
            '(SELECT "group" FROM duplicates WHERE name = $name AND key = $key) '
            f"AND NOT (name = $name AND key = $key) ORDER BY shard, key LIMIT {most}"
        )
        return self._ask(sql, made)

    def _read_duplicates(self) -> None:
        parts = self.table.shard_parts
        rows = read_duplicates(self.table.storage, self.table.output)
        if rows is None:
            rows = pa.table([pa.array([], pa.string())] * 3, ["key", "shard", "group"])
        shards = rows["shard"].to_pylist()
        names = pa.array([None if s is None else tail(s, parts) for s in shards], pa.string())
        self._engine.register("read", rows.append_column("name", names))
        self._engine.execute("CREATE TABLE duplicates AS SELECT * FROM read")
        self._engine.unregister("read")

    def _count(self, asked: Question, version: int) -> int:
        made = condition(asked, self.table)
        return int(self._ask(f"SELECT count(*) AS n FROM scores {made.sql}", made)[0]["n"])

    def pick(self, samples: Iterable[Named], picked: bool) -> None:
        """Add samples to what is picked, or take them away."""
        rows = [list(sample) for sample in samples]
        if not rows:
            return
        with self._lock, self._engine.cursor() as cursor:
            cursor.executemany("DELETE FROM picked WHERE shard = ? AND key = ?", rows)
            if picked:
                cursor.executemany("INSERT INTO picked VALUES (?, ?)", rows)

    def _listed(self, by: str) -> list[str]:
        known = set(self.table.columns)
        return [name for name in dict.fromkeys([*SHOWN, *DERIVED, by]) if name in known]

    def _ask(self, sql: str, made: Condition) -> list[Row]:
        try:
            with self._engine.cursor() as cursor:
                found = cursor.execute(sql, made.values or None)
                names = [column[0] for column in found.description or ()]
                return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except duckdb.Error as error:
            raise StorageError(f"{self.table.output}: cannot be queried ({error})") from error
