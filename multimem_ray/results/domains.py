"""Memorization by domain: mean score and share of the list for each value of a field.

One pass over the scores: rows stream through DuckDB, which adds up a handful of sums per value and
spills beyond its bound; a second where samples have copies, which count as one draw together. The
figures follow from the sums:

    mean, low, high          of MultiMem; the 95 % interval is Student's with C - 1 degrees of
                             freedom over the C independent groups of samples (copies are one:
                             Σ (S_c - n_c m)² · C / (C - 1) / n², the cluster-robust variance), and
                             what the models add to all samples of a domain alike
    shrunk, _low, _high      towards the mean of all (:mod:`multimem_ray.verdict.domains`)
    share, _low, _high       of samples with a score that are on the list; Wilson's interval, with
                             n² / Σ n_c² for n (Kish 1965)
    share_shrunk, _low, _high

What the models add: each pair of them says a mean of its own, and these differ more than the errors
of single samples can explain. The excess, averaged over the domains by their size, is added to
every squared standard error. Of a target it is the error of its gap.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import stdtrit

from multimem_ray.config import nearest
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.results.arrays import Floats
from multimem_ray.results.catalogue import URL, Catalogue
from multimem_ray.results.domain_rows import COLUMNS, HOST, PARTITION, SHARD, DomainRows
from multimem_ray.results.domain_sums import DomainSums, nullable
from multimem_ray.results.select import Wanted
from multimem_ray.results.statistics import wilson_ends
from multimem_ray.results.table import ScoreTable
from multimem_ray.verdict import domains as shrinking

FOLDER = "domains"
MOST = 1_000_000
_TOP_PERCENT, _RATE = 5.0, 0.05
_FIGURES = (
    *("mean", "low", "high", "shrunk", "shrunk_low", "shrunk_high"),
    *("share", "share_low", "share_high", "share_shrunk", "share_shrunk_low", "share_shrunk_high"),
    "cmc_out",
)


@dataclass(frozen=True)
class Domains:
    """What a run says of each value of a field.

    Attributes:
        by: The field.
        listed: The list whose share is told, in words.
        whole: ``samples``, ``scored``, and of all of them ``mean`` (``low``, ``high``) and
            ``share`` (``share_low``, ``share_high``); ``between_sd``, the standard deviation of the
            domains' true means; ``models_se``, what the models add to each.
        table: A row for each value, by the shrunk mean, highest first: ``value`` (null where a
            sample has none), ``samples``, ``scored``, ``listed``, and the figures.
        missed: Scored samples that could not be joined with the field.
    """

    by: str
    listed: str
    whole: dict[str, Any]
    table: pa.Table
    missed: int = 0

    def as_json(self, most: int | None = None) -> dict[str, Any]:
        """As one JSON object, with the first rows or all."""
        return {
            "by": self.by,
            "listed": self.listed,
            "whole": self.whole,
            "values": len(self.table),
            "missed": self.missed,
            "domains": self.table.slice(0, most).to_pylist(),
        }

    def parquet(self) -> bytes:
        """All rows as a Parquet file; its metadata has the rest under ``multimem_ray.domains``."""
        about = {k: v for k, v in self.as_json(0).items() if k != "domains"}
        marked = self.table.replace_schema_metadata({"multimem_ray.domains": json.dumps(about)})
        buffer = BytesIO()
        pq.write_table(marked, buffer, compression="zstd")
        return buffer.getvalue()


def domains(
    table: ScoreTable,
    by: str,
    *,
    listed: Wanted | None = None,
    url_field: str = URL,
    most: int = MOST,
    progress: Progress | None = None,
) -> Domains:
    """Mean score and share of the list for each value of a field.

    Args:
        table: The scores of a run.
        by: ``label``, ``split``, ``group``, ``modalities``, ``shard``, ``partition``, ``host``, or
            a field of the samples' JSON, which is read from the shards once.
        listed: The list; by default all that are memorized at all with 5 % false ones, and the
            highest 5 % where the run has no q-values.
        url_field: JSON field with the URL, for ``host``.
        most: Values beyond which the field is refused: each has sums in memory.
        progress: Told while shards have to be read.

    Raises:
        ConfigError: Nothing is scored, there is no such field, or it has too many values.
        StorageError: A file cannot be read, or the shards are needed and not there.
    """
    if not table.score_files:
        raise ConfigError(f"{table.output}: nothing is scored yet; run `multimem audit` first")
    wanted = listed or (Wanted(fdr=_RATE) if table.verdict.q else Wanted(percent=_TOP_PERCENT))
    rows = DomainRows(table, by, url_field)
    rows.prepare(progress)
    sums = DomainSums(rows, wanted.rule(table), most)
    added = sums.added()
    if added["domain"] == [None]:
        raise ConfigError(_no_values(rows))
    if not added["n"].sum():
        raise ConfigError(f"{table.output}: no sample has a MultiMem, so there are no means")
    figures, whole = _figures(added, sums.clusters(added), sums.pairs, sums.gap_error)
    return Domains(rows.name, _words(wanted), whole, _ordered(added, figures), rows.missed)


def catalogued_domains(table: ScoreTable, most: int = 1_000) -> list[Domains]:
    """By host of the URL and by every field that was catalogued: what costs no look into shards.

    Args:
        table: The scores of a run.
        most: Values of a field beyond which it is passed over.

    Raises:
        StorageError: A file cannot be read.
    """
    catalogue, told = Catalogue(table.output, table.storage), []
    if catalogue.whole:
        for name in [HOST, *(field for field in catalogue.fields if field != URL)]:
            try:
                told.append(domains(table, name, most=most))
            except ConfigError:
                continue  # no sample has it, or it names single samples
    return told


def write_domains(table: ScoreTable, made: Domains, url: str | None = None) -> str:
    """Write the rows as Parquet, by default to ``domains/<field>.parquet`` of the run.

    Returns:
        The URL of the file.
    """
    name = f"{quote(made.by, safe=' ').replace(' ', '_')}.parquet"
    url = url or table.storage.join(table.output, FOLDER, name)
    table.storage.write_atomic(url, made.parquet())
    return url


@dataclass(frozen=True)
class _Means:
    """Means (G,), the variance of one independent group of samples, their number, and the ends."""

    mean: Floats
    own: Floats
    size: Floats
    df: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, n: Floats, s: Floats, clusters: dict[str, Floats], models: float) -> _Means:
        """From sums; NaN where undefined."""
        count, sizes = clusters["count"], clusters["sizes"]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean, size = s / n, n * n / sizes
            off = clusters["squares"] - 2 * mean * clusters["products"] + mean**2 * sizes
            # Rounding may leave less than nothing where all samples have one score.
            own = off.clip(0) / sizes * count / (count - 1)
        df = np.where(n > 0, count - 1, 0.0)
        reach = stdtrit(np.maximum(df, 1), 0.975) * np.sqrt(own / size + models)
        low, high = (np.where(df > 0, mean + side * reach, np.nan) for side in (-1, 1))
        return cls(mean, own, size, df, low, high)


def _figures(
    added: dict[str, Any], clusters: dict[str, Floats], pairs: int, gap_error: float
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """The figures of each value, NaN where undefined, and those of the whole."""
    n, hits = added["n"], added["hits"]
    scored = n > 0
    models = _models_variance(added, pairs) + gap_error**2
    each = _Means.of(n, added["s"], clusters, models)
    whole = _whole(added, clusters, models)
    mean, size = each.mean, each.size
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n

    told = {name: np.full(len(n), np.nan) for name in _FIGURES}
    told |= {"mean": mean, "low": each.low, "high": each.high, "share": share}
    told |= {"cmc_out": added["out"]}
    own = np.where(each.df > 0, each.own, 0.0)
    errors = shrinking.moderated_variances(own, each.df)[scored] / size[scored] + models
    between = shrinking.between_variance(mean[scored], errors, whole["mean"])
    shrunk, sd = shrinking.shrunk_means(mean[scored], errors, whole["mean"], between)
    weight = shrinking.prior_weight(share[scored], size[scored], whole["share"])
    shares = shrinking.shrunk_shares(share[scored], size[scored], whole["share"], weight)
    ends = wilson_ends(share[scored], size[scored])
    for name, values in (
        ("shrunk", shrunk),
        ("shrunk_low", shrunk - 1.959964 * sd),
        ("shrunk_high", shrunk + 1.959964 * sd),
        ("share_low", ends[0]),
        ("share_high", ends[1]),
        ("share_shrunk", shares[0]),
        ("share_shrunk_low", shares[1]),
        ("share_shrunk_high", shares[2]),
    ):
        told[name][scored] = values
    return told, whole | {"between_sd": float(np.sqrt(between))}


def _whole(added: dict[str, Any], clusters: dict[str, Floats], models: float) -> dict[str, Any]:
    """The figures of all samples together."""
    n, hits = added["n"].sum(keepdims=True), float(added["hits"].sum())
    sums = {name: values.sum(keepdims=True) for name, values in clusters.items()}
    all_ = _Means.of(n, added["s"].sum(keepdims=True), sums, models)
    ends = wilson_ends(np.array([hits]) / n, all_.size)
    told = {"low": all_.low, "high": all_.high, "share_low": ends[0], "share_high": ends[1]}
    return {
        "samples": int(added["rows"].sum()),
        "scored": int(n[0]),
        "mean": float(all_.mean[0]),
        "share": hits / float(n[0]),
        **{name: None if np.isnan(one[0]) else float(one[0]) for name, one in told.items()},
        "models_se": float(np.sqrt(models)),
    }


def _models_variance(added: dict[str, Any], pairs: int) -> float:
    """Variance that the models add to the mean of every domain; at least 0."""
    known = added["pair_n"] > 0
    if not pairs or not known.any():
        return 0.0
    n = added["pair_n"][known]
    means = np.stack([added[f"d{p}"][known] / n for p in range(pairs)], axis=1)
    excess = means.var(axis=1, ddof=1) / pairs - added["pair_error"][known] / n**2
    return max(0.0, float(n @ excess / n.sum()))


def _ordered(added: dict[str, Any], figures: dict[str, Floats]) -> pa.Table:
    columns = {
        "value": pa.array(added["domain"], pa.string()),
        **{
            name: pa.array(added[of].astype(np.int64))
            for name, of in (("samples", "rows"), ("scored", "n"), ("listed", "hits"))
        },
        **{name: nullable(figures[name]) for name in _FIGURES},
    }
    return pa.table(columns).sort_by([("shrunk", "descending"), ("value", "ascending")])


def _no_values(rows: DomainRows) -> str:
    known = [*COLUMNS, SHARD, PARTITION, HOST]
    return (
        f"{rows.table.output}: no scored sample has a {rows.name}{nearest(rows.by, known)}; "
        f"--by takes {', '.join(known)}, or a field of the samples' JSON"
    )


def _words(wanted: Wanted) -> str:
    if wanted.more_than is not None:
        return f"memorized more than {wanted.more_than}, {100 * (wanted.fdr or 0):g} % false"
    if wanted.fdr is not None:
        return f"memorized at all, {100 * wanted.fdr:g} % false (q ≤ {wanted.fdr:g})"
    return f"the highest {wanted.percent:g} %"
