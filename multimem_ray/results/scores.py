"""The scores of a run for a notebook: as Arrow, pandas, Polars or a relation of DuckDB."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from multimem_ray.errors import ConfigError
from multimem_ray.results.blend import Blended, blend_scores
from multimem_ray.results.summary import summarize
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import top
from multimem_ray.storage import Storage

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from multimem_ray.results.diff import Diff
    from multimem_ray.results.domains import Domains


class Scores:
    """The scores of a run, for a notebook: only what is committed.

    Args:
        table: The run.
    """

    def __init__(self, table: ScoreTable) -> None:
        self.table = table

    def arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, or some of their columns, as an Arrow table in memory.

        Raises:
            ConfigError: A column does not exist; names the nearest one.
            StorageError: A file cannot be read.
        """
        names = self.table.columns if columns is None else list(columns)
        self.table.require(*names)
        fields = [self.table.schema.field(name) for name in names if self.table.columns]
        return pa.Table.from_batches(self.table.batches(names), pa.schema(fields))

    def pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The same as a data frame of pandas."""
        _library("pandas")
        frame: pd.DataFrame = self.arrow(columns).to_pandas()
        return frame

    def polars(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The same as a data frame of Polars.

        Raises:
            ConfigError: Polars is not installed.
        """
        frame: pl.DataFrame = _library("polars").from_arrow(self.arrow(columns))
        return frame

    def duckdb(self) -> duckdb.DuckDBPyRelation:
        """A relation of DuckDB, for SQL; files in an object store are read into memory first."""
        engine, files = duckdb.connect(), self.table.score_files
        if not files or self.table.storage.is_remote(self.table.output):
            return engine.from_arrow(self.arrow())
        rows: duckdb.DuckDBPyRelation = self.table.relation(engine)
        return rows

    def top(self, n: int = 24, by: str | None = None) -> list[dict[str, Any]]:
        """The n most remarkable samples; see :func:`multimem_ray.results.top.top`."""
        return top(self.table, by, n)

    def domains(self, by: str, **options: Any) -> Domains:
        """Means and shares by a field; see :func:`multimem_ray.results.domains.domains`."""
        from multimem_ray.results.domains import domains

        return domains(self.table, by, **options)

    def blended(self, proxies: str | os.PathLike[str]) -> Blended:
        """These scores and those of an audit by a cheaper model, as one.

        Args:
            proxies: Output of the other audit; see :mod:`multimem_ray.results.blend`.

        Raises:
            ConfigError: The runs cannot be blended.
        """
        return blend_scores(self.table, ScoreTable(os.fspath(proxies), self.table.storage))

    def diff(self, other: Scores, **options: Any) -> Diff:
        """This run less another one, by sample; see :func:`multimem_ray.results.diff.diff`."""
        from multimem_ray.results.diff import diff

        return diff(other.table, self.table, **options)

    def summary(self) -> dict[str, Any]:
        """What the report shows; see :func:`multimem_ray.results.summary.summarize`."""
        return summarize(self.table)


def open_scores(output: str | os.PathLike[str], storage: Storage | None = None) -> Scores:
    """The scores of a run.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        storage: How to reach it; the local disk, or S3 as the environment has it, by default.
    """
    return Scores(ScoreTable(os.fspath(output), storage or Storage()))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} is not installed: `pip install {name}`, or use .arrow()"
        ) from error
