"""Rows of a run by the values of a text column: some keys of very many.

A file is ordered by score, so a key may stand in any of its row groups. The one column is read of
all of them, and the others of those alone in which something was asked for: for a thousand keys in
ten million rows that is a third of the scores, where a join would decode them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.results.table import THREADS, ScoreTable, open_engine
from multimem_ray.results.top import quoted
from multimem_ray.results.verdict import DERIVED, stored_columns
from multimem_ray.storage import FileInfo


def rows_where(
    table: ScoreTable, column: str, values: Iterable[str], columns: Sequence[str]
) -> pa.Table:
    """The rows whose column has one of the values, in the order of shard and index.

    Args:
        table: The scores of a run.
        column: A column of text.
        columns: Of the result; those that follow from all samples together may be among them.

    Raises:
        ConfigError: A column does not exist; names the nearest one.
        StorageError: A file cannot be read.
    """
    table.require(column, *columns)
    asked = pa.array(sorted(set(values)), pa.string())
    derived = [name for name in columns if name in DERIVED]
    base = stored_columns(table.stored) if derived else []
    named = dict.fromkeys([*(c for c in columns if c not in DERIVED), *base, "shard", "index"])
    schema = pa.schema([table.schema.field(name) for name in named])

    with ThreadPoolExecutor(THREADS) as pool:
        read = partial(_rows, table, column, asked, schema)
        parts = list(pool.map(read, table.score_files if len(asked) else ()))
    rows = pa.concat_tables([schema.empty_table(), *parts]).sort_by(
        [("shard", "ascending"), ("index", "ascending")]
    )
    return _with_derived(table, rows, derived).select(list(columns))


def _rows(
    table: ScoreTable, column: str, asked: pa.Array, schema: pa.Schema, file: FileInfo
) -> pa.Table:
    with table.opened(file) as parquet:
        if column not in parquet.schema_arrow.names:
            return schema.empty_table()
        names = parquet.read(columns=[column], use_threads=False)[column]
        places = np.flatnonzero(pc.is_in(names, value_set=asked))
        if not len(places):
            return schema.empty_table()
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        groups, of = np.unique(
            np.searchsorted(starts, places, side="right") - 1, return_inverse=True
        )
        # An earlier version wrote fewer columns.
        there = [name for name in schema.names if name in parquet.schema_arrow.names]
        rows = parquet.read_row_groups(groups.tolist(), columns=there, use_threads=False)
        begins = np.cumsum([0, *(sizes[group] for group in groups)])
        within = places - starts[groups[of]] + begins[of]
        return _completed(rows.take(pa.array(within)), schema)


def _completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    there = set(rows.column_names)
    columns = [
        rows[field.name] if field.name in there else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema.names).cast(schema)


def _with_derived(table: ScoreTable, rows: pa.Table, derived: Sequence[str]) -> pa.Table:
    if not derived:
        return rows
    expressions = table.verdict.sql()
    named = ", ".join(f"{expressions[name]} AS {quoted(name)}" for name in derived)
    with open_engine() as engine:
        engine.register("scores", rows)
        told = engine.sql(f"SELECT {named} FROM scores").to_arrow_table()
    for name in derived:
        rows = rows.append_column(name, told[name])
    return rows
