"""Sums over the scored rows of each value of a field, in one pass; in two where there are copies.

What makes a value's figures is in :mod:`multimem_ray.results.domains`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from multimem_ray.design.membership import BLOCKS
from multimem_ray.errors import ConfigError
from multimem_ray.results.arrays import Floats, floats, lists
from multimem_ray.results.domain_rows import VALUE, DomainRows
from multimem_ray.results.select import Rule
from multimem_ray.results.table import open_engine
from multimem_ray.results.verdict import DERIVED, stored_columns
from multimem_ray.store.schema import SCORE
from multimem_ray.verdict.pairs import paired

_SUMS = ("rows", "n", "s", "out", "hits", "squares", "pair_n", "pair_error")


class DomainSums:
    """Sums over the rows of each value.

    Args:
        rows: Rows with their value.
        rule: What is listed.
        most: Values that are refused beyond.
    """

    def __init__(self, rows: DomainRows, rule: Rule, most: int) -> None:
        self._rows, self._rule, self._table, self._most = rows, rule, rows.table, most
        run = self._table.document("run.json")
        design = dict((run.get("config") or {}).get("design") or {})
        self._targeted, self._grouped = bool(design.get("target")), bool(design.get("group"))
        self._block = BLOCKS.get(str(design.get("kind", "complementary_halves")), 0)
        needed = [SCORE, "cmc_out", *rule.ranking.columns, *rule.columns]
        needed += [name for name in ("shard", "key") if name in rule.parameters]
        self._derived = [name for name in dict.fromkeys(needed) if name in DERIVED]
        base = stored_columns(self._table.stored) if self._derived else []
        stored = [name for name in (*needed, *base) if name not in DERIVED]
        self._stored = list(dict.fromkeys(stored))

    @cached_property
    def pairs(self) -> int:
        """Blocks of models that stand against one another; 0 where there are fewer than two."""
        models = self._table.schema.field("cmc").type.list_size
        count = models // self._block if self._block and not self._targeted else 0
        return count if count > 1 else 0

    @property
    def gap_error(self) -> float:
        """Standard error of what was subtracted from every score of a target."""
        known = self._table.document("held_out", "held_out.json").get("target") or {}
        return float(known.get("gap_se") or 0.0) if self._targeted else 0.0

    def added(self) -> dict[str, Any]:
        """Columns of sums by value: arrays of floats, and ``domain``, a list."""
        pairs = [f"coalesce(sum(d{p}), 0) AS d{p}" for p in range(self.pairs)]
        query = f"""
        SELECT {self._rows.sql} AS domain, count(*) AS rows, count({SCORE}) AS n,
               coalesce(sum({SCORE}), 0) AS s, avg(cmc_out) AS out,
               count(*) FILTER (listed AND {SCORE} IS NOT NULL) AS hits,
               coalesce(sum({SCORE} * {SCORE}), 0) AS squares,
               count(pair_error) AS pair_n, coalesce(sum(pair_error), 0) AS pair_error
               {"".join(f", {one}" for one in pairs)}
        FROM ({self._judged()}) GROUP BY domain ORDER BY domain NULLS LAST LIMIT {self._most + 1}
        """
        names = [*_SUMS, *(f"d{p}" for p in range(self.pairs))]
        answer = self._asked(query, self._with_pairs())
        if len(answer) > self._most:
            raise ConfigError(
                f"{self._rows.name} has more than {self._most:,} values; ask for a coarser field"
            )
        told: dict[str, Any] = {name: floats(answer[name]) for name in names}
        return told | {"domain": answer["domain"].to_pylist()}

    def clusters(self, added: dict[str, Any]) -> dict[str, Floats]:
        """``count`` C, ``squares`` Σ S_c², ``products`` Σ n_c S_c and ``sizes`` Σ n_c²."""
        alone = {
            "count": added["n"],
            "squares": added["squares"],
            "products": added["s"],
            "sizes": added["n"],
        }
        summary = self._table.document("summary.json")
        copies = summary.get("duplicates") or {}
        current = (summary.get("verdict") or {}).get("of") == self._table.version
        if not self._grouped or (current and copies.get("groups") == 0):
            return alone
        own = 'CASE WHEN "group" IS NULL THEN hash(shard, index) ELSE hash("group") END'
        query = f"""
        SELECT domain, count(*) AS count, sum(s * s) AS squares, sum(n * s) AS products,
               sum(n * n) AS sizes
        FROM (SELECT {self._rows.sql} AS domain, sum({SCORE}) AS s, count(*)::DOUBLE AS n
              FROM joined WHERE {SCORE} IS NOT NULL GROUP BY domain, {own})
        GROUP BY domain ORDER BY domain NULLS LAST
        """
        answer = self._asked(query, self._rows.batches([SCORE, "group", "shard", "index"]))
        place = {value: at for at, value in enumerate(added["domain"])}
        found = {name: np.zeros(len(place)) for name in alone}
        places = [place[value] for value in answer["domain"].to_pylist()]
        for name, values in found.items():
            values[places] = floats(answer[name])
        return found

    def _judged(self) -> str:
        """The joined rows, with ``listed``."""
        made, ranking = self._table.verdict.sql(), self._rule.ranking
        derived = "".join(f", {made[name]} AS {name}" for name in self._derived)
        scored = f"SELECT *, {ranking.value} AS score FROM (SELECT *{derived} FROM joined)"
        return f"SELECT *, coalesce({self._rule.condition}, false) AS listed FROM ({scored})"

    def _with_pairs(self) -> Iterator[pa.RecordBatch]:
        """Rows with the score that each pair of models gives, and the squared error of their mean.

        Both are null where not every pair has one.
        """
        models = ["cmc", "member"] if self.pairs else []
        for batch in self._rows.batches([*self._stored, *models]):
            columns = {name: batch[name] for name in (*self._stored, VALUE)}
            error = np.full(len(batch), np.nan)
            if self.pairs:
                member, cmc = lists(batch["member"]), lists(batch["cmc"])
                scores = paired(cmc, member, self.pairs, self._block)[:, :, 1]
                scores[np.isnan(scores).any(axis=1)] = np.nan
                error = scores.var(axis=1, ddof=1) / self.pairs
                columns |= {f"d{p}": nullable(scores[:, p]) for p in range(self.pairs)}
            yield pa.RecordBatch.from_pydict(columns | {"pair_error": nullable(error)})

    def _asked(self, query: str, batches: Iterator[pa.RecordBatch]) -> pa.Table:
        first = next(batches)

        def every() -> Iterator[pa.RecordBatch]:
            yield first
            yield from batches

        with open_engine() as engine:
            engine.register("joined", pa.RecordBatchReader.from_batches(first.schema, every()))
            parameters = {
                name: value for name, value in self._rule.parameters.items() if f"${name}" in query
            }
            return engine.sql(query, params=parameters or None).to_arrow_table()


def nullable(values: Floats) -> pa.Array:
    """An Arrow array with null for NaN."""
    return pa.array(values, from_pandas=True)
