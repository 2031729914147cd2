"""Two runs compared sample by sample: before and after, or two recipes.

Rows are joined (:mod:`multimem_ray.results.diff_rows`), each difference gets its interval and
p-value (:mod:`multimem_ray.verdict.differences`), and all of them together a q-value. The mean
difference has the interval of means by domain (:mod:`multimem_ray.results.domains`): copies are one
draw, and what either run's models add to all samples alike is part of its error. Rank correlation
is Spearman's, of all samples or of 32,768 that follow from their scores, with the interval by
Fisher's z (Bonett & Wright 2000).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import stdtrit

from multimem_ray.arrow_files import ParquetFile
from multimem_ray.results.arrays import Floats, floats
from multimem_ray.results.diff_rows import JoinedRuns
from multimem_ray.results.domain_sums import nullable
from multimem_ray.results.domains import domains
from multimem_ray.results.reliability import RowSample
from multimem_ray.results.statistics import Z95, wilson
from multimem_ray.results.table import BATCH_ROWS, ScoreTable, open_engine
from multimem_ray.verdict.differences import DifferenceBins, differences
from multimem_ray.verdict.reliability import spearman

FOLDER = "diffs"
_FIGURES = ("difference", "error", "low", "high", "q")


@dataclass(frozen=True)
class Diff:
    """What two runs say of the same samples.

    Attributes:
        summary: ``samples`` in common, ``a_alone``, ``b_alone`` and ``changed`` (count, examples),
            ``without_score`` of those in common, ``mean`` difference (``low``, ``high``),
            ``correlation`` of ranks (``low``, ``high``), ``moved`` (share beyond its error,
            ``low``, ``high``, ``up``, ``down``), None where it is not known.
        movers: Rows with the largest differences, largest first, either way.
        url: Parquet with a row for each sample in common.
    """

    summary: dict[str, Any]
    movers: list[dict[str, Any]]
    url: str

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {**self.summary, "movers": self.movers, "table": self.url}


def diff(
    a: ScoreTable, b: ScoreTable, *, fdr: float = 0.05, movers: int = 10, out: str | None = None
) -> Diff:
    """Compare two runs.

    Args:
        a: The scores of one run, such as that before.
        b: Those of the other; differences are b - a.
        fdr: Share of false ones among those that count as moved.
        movers: How many of the largest differences are told.
        out: Where the table of all goes; by default to ``diffs/`` of b.

    Raises:
        ConfigError: Nothing is scored in one of them, or they have no sample in common.
        StorageError: Something cannot be read or written.
    """
    joined, bins, ranks = JoinedRuns(a, b), DifferenceBins(), RowSample()
    fingerprint = a.document("run.json").get("fingerprint")
    url = out or b.storage.join(b.output, FOLDER, f"{fingerprint}.parquet")
    dfs = a.verdict.total_df, b.verdict.total_df
    with _temporary() as path:
        writer = None
        for batch in joined.batches():
            told = differences(
                floats(batch["a"]),
                floats(batch["a_error"]),
                dfs[0] or math.nan,
                floats(batch["b"]),
                floats(batch["b_error"]),
                dfs[1] or math.nan,
            )
            bins.update(told.p)
            ranks.update(np.stack([floats(batch["a"]), floats(batch["b"])], axis=1))
            columns = (told.value, told.error, told.low, told.high, told.p)
            rows = batch
            for name, values in zip((*_FIGURES[:4], "p"), columns, strict=True):
                rows = rows.append_column(name, nullable(values))
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_batch(rows)
        if writer is not None:
            writer.close()
        moved, largest = _finish(path, b, url, bins, fdr, movers)
        sums = _sums(path)
    known = bool(dfs[0] and dfs[1])
    summary = {
        "a": a.output,
        "b": b.output,
        "samples": joined.rows,
        "without_score": joined.rows - sums["n"],
        **{n: getattr(joined, n).as_json() for n in ("a_alone", "b_alone", "changed")},
        "mean": _mean(sums, [_models_se(table) for table in (a, b)]),
        "correlation": _correlation(ranks.rows),
        "moved": _moved(moved, sums["n"], fdr) if known and sums["n"] else None,
    }
    return Diff(summary, largest, url)


@contextmanager
def _temporary() -> Iterator[str]:
    with TemporaryDirectory(prefix="multimem-") as folder:
        yield str(Path(folder, "joined.parquet"))


def _finish(
    path: str, table: ScoreTable, url: str, bins: DifferenceBins, fdr: float, movers: int
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Write the rows with their q-values; how many moved up and down, and the largest movers."""
    up = down = 0
    largest: list[dict[str, Any]] = []
    with ParquetFile(path, path) as file, table.storage.create(url) as stream:
        kept = [n for n in file.schema_arrow.names if n != "p"]
        fields = [file.schema_arrow.field(n) for n in kept]
        schema = pa.schema([*fields, pa.field("q", pa.float64())])
        with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for batch in file.iter_batches(BATCH_ROWS):
                q, d = bins.q(floats(batch["p"])), floats(batch["difference"])
                rows = batch.select(kept).append_column("q", nullable(q))
                writer.write_batch(rows)
                up += int(((q <= fdr) & (d > 0)).sum())
                down += int(((q <= fdr) & (d < 0)).sum())
                largest += _first(rows, d, movers)
                largest.sort(key=lambda row: (-abs(row["difference"]), row["key"], row["shard"]))
                largest = largest[:movers]
    return (up, down), largest


def _first(rows: pa.RecordBatch, d: Floats, count: int) -> list[dict[str, Any]]:
    size = np.where(np.isnan(d), -1.0, np.abs(d))
    places = [at for at in np.argsort(-size, kind="stable")[:count] if size[at] >= 0]
    told: list[dict[str, Any]] = rows.take(pa.array(places, pa.int64())).to_pylist()
    return told


def _sums(path: str) -> dict[str, float]:
    """Sums of the differences; copies, which have one group, are one draw."""
    own = 'CASE WHEN "group" IS NULL THEN hash(shard, key) ELSE hash("group") END'
    with open_engine() as engine:
        rows = engine.sql(
            f"""
            SELECT coalesce(sum(n), 0)::BIGINT AS n, coalesce(sum(s), 0) AS s, count(*) AS groups,
                   coalesce(sum(s * s), 0) AS squares, coalesce(sum(n * s), 0) AS products,
                   coalesce(sum(n * n), 0)::DOUBLE AS sizes
            FROM (SELECT count(*) AS n, sum(difference) AS s
                  FROM read_parquet($path) WHERE difference IS NOT NULL GROUP BY {own})
            """,
            params={"path": path},
        ).to_arrow_table()
    told: dict[str, float] = rows.to_pylist()[0]
    return told


def _models_se(table: ScoreTable) -> float:
    scored = table.query("SELECT count(multimem) AS n FROM scores", ["multimem"])[0]["n"]
    return float(domains(table, "modalities").whole["models_se"]) if scored else 0.0


def _mean(sums: dict[str, float], models: list[float]) -> dict[str, float | None]:
    n, groups = sums["n"], sums["groups"]
    if not n:
        return {"value": None, "low": None, "high": None}
    mean = sums["s"] / n
    if groups < 2:
        return {"value": mean, "low": None, "high": None}
    off = max(0.0, sums["squares"] - 2 * mean * sums["products"] + mean**2 * sums["sizes"])
    error = math.sqrt(off / n**2 * groups / (groups - 1) + sum(se**2 for se in models))
    reach = float(stdtrit(groups - 1, 0.975)) * error
    return {"value": mean, "low": mean - reach, "high": mean + reach}


def _correlation(rows: Floats) -> dict[str, float | None]:
    if len(rows) < 4 or not np.ptp(rows, axis=0).all():
        return {"value": None, "low": None, "high": None}
    value = spearman(rows[:, 0], rows[:, 1])
    error = math.sqrt((1 + value**2 / 2) / (len(rows) - 3))
    z = math.atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))
    low, high = (math.tanh(z + side * Z95 * error) for side in (-1, 1))
    return {"value": value, "low": low, "high": high}


def _moved(moved: tuple[int, int], samples: float, fdr: float) -> dict[str, float]:
    up, down = moved
    interval = wilson(up + down, int(samples))
    return {"fdr": fdr, "share": (up + down) / samples, **interval, "up": up, "down": down}
