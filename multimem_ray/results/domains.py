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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import stdtrit

from multimem_ray.config import nearest
from multimem_ray.design.membership import BLOCKS
from multimem_ray.errors import ConfigError
from multimem_ray.progress import Progress
from multimem_ray.results.arrays import Floats, floats, lists
from multimem_ray.results.catalogue import URL, Catalogue
from multimem_ray.results.domain_rows import COLUMNS, HOST, PARTITION, SHARD, VALUE, DomainRows
from multimem_ray.results.select import Rule, Wanted
from multimem_ray.results.statistics import wilson_ends
from multimem_ray.results.table import ScoreTable, open_engine
from multimem_ray.results.verdict import DERIVED, stored_columns
from multimem_ray.store.schema import SCORE
from multimem_ray.verdict import domains as shrinking
from multimem_ray.verdict.pairs import paired

FOLDER = "domains"
MOST = 1_000_000
_TOP_PERCENT, _RATE = 5.0, 0.05
_SUMS = ("rows", "n", "s", "out", "hits", "squares", "pair_n", "pair_error")
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
        whole: ``samples``, ``scored``, ``mean``, ``share`` of all; ``between_sd``, the standard
            deviation of the domains' true means; ``models_se``, what the models add to each.
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
    sums = _Sums(rows, wanted.rule(table), most)
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


class _Sums:
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
                columns |= {f"d{p}": _nullable(scores[:, p]) for p in range(self.pairs)}
            yield pa.RecordBatch.from_pydict(columns | {"pair_error": _nullable(error)})

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


def _nullable(values: Floats) -> pa.Array:
    return pa.array(values, from_pandas=True)


def _figures(
    added: dict[str, Any], clusters: dict[str, Floats], pairs: int, gap_error: float
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """The figures of each value, NaN where undefined, and those of the whole."""
    n, s, hits = added["n"], added["s"], added["hits"]
    scored = n > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, share = s / n, hits / n
        size = n * n / clusters["sizes"]
        off = clusters["squares"] - 2 * mean * clusters["products"] + mean**2 * clusters["sizes"]
        # Rounding may leave less than nothing where all samples have one score.
        own = off.clip(0) / clusters["sizes"] * clusters["count"] / (clusters["count"] - 1)
    df = np.where(scored, clusters["count"] - 1, 0.0)
    models = _models_variance(added, pairs) + gap_error**2
    whole_mean, whole_share = float(s.sum() / n.sum()), float(hits.sum() / n.sum())
    reach = stdtrit(np.maximum(df, 1), 0.975) * np.sqrt(own / size + models)
    low, high = (np.where(df > 0, mean + side * reach, np.nan) for side in (-1, 1))

    told = {name: np.full(len(n), np.nan) for name in _FIGURES}
    told |= {"mean": mean, "low": low, "high": high, "share": share, "cmc_out": added["out"]}
    known = shrinking.moderated_variances(np.where(df > 0, own, 0.0), df)[scored]
    errors = known / size[scored] + models
    between = shrinking.between_variance(mean[scored], errors, whole_mean)
    shrunk, sd = shrinking.shrunk_means(mean[scored], errors, whole_mean, between)
    weight = shrinking.prior_weight(share[scored], size[scored], whole_share)
    shares = shrinking.shrunk_shares(share[scored], size[scored], whole_share, weight)
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
    whole = {
        "samples": int(added["rows"].sum()),
        "scored": int(n.sum()),
        "mean": whole_mean,
        "share": whole_share,
        "between_sd": float(np.sqrt(between)),
        "models_se": float(np.sqrt(models)),
    }
    return told, whole


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
        **{name: _nullable(figures[name]) for name in _FIGURES},
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
