"""Lists of samples to remove and to keep, for the next training.

Samples are ranked by

    a column   high is suspicious, but low for the consistencies cmc_in and cmc_out
    multimem_shrunk   the default where there are two pairs of models, see
               :mod:`multimem_ray.results.verdict`
    clipmem    the sum of CLIPMem over the pairs of modalities that a sample has
    random     a keyed hash of shard and key, for samples that have a MultiMem: the control of
               every other ranking

and those are removed that come first, exactly so many, or whose score is beyond a value by so many
of their standard errors, or as many as can be listed with a known share of false ones: of samples
that are not memorized at all, or not more than some amount. Both lists are written, so that what
was left out can be looked at: Parquet with the reasons beside each sample, or DataComp's ``.npy``,
which its resharder reads.

    selections/<name>/remove/00000.parquet   what the rule removes
    selections/<name>/keep/00000.parquet     all other scored samples
    selections/<name>/selection.json         the rule and the counts; written last

Samples without the score (no model saw them, or all did) cannot be suspected: they are kept.
Held-out samples, and those in ``errors/``, were not scored and stand in neither list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from multimem_ray.arrow_files import read_parquet
from multimem_ray.design.hashing import uniform
from multimem_ray.design.shard_names import PARTS
from multimem_ray.errors import ConfigError
from multimem_ray.results.arrays import floats
from multimem_ray.results.statistics import QuantileSketch
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.top import direction, largest_first, quoted, require_number
from multimem_ray.results.verdict import ERROR, SHRUNK, SHRUNK_SD, Q
from multimem_ray.storage import Storage
from multimem_ray.store.schema import ATTRIBUTION, CLIPMEM
from multimem_ray.verdict.lists import Bins, probability_below, threshold

Kind = Literal["keep", "remove"]
KINDS: tuple[Kind, ...] = ("keep", "remove")
PART_ROWS = 1_000_000
UID = re.compile(r"[0-9a-fA-F]{32}")
UID_TYPE = np.dtype("u8,u8")
STANDARD_ERRORS = {"multimem": ERROR, SHRUNK: SHRUNK_SD}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PLAIN = ("key", "shard", "index", "label")


@dataclass(frozen=True)
class Ranking:
    """An order of a run's samples.

    Attributes:
        table: The scores of the run.
        name: What the user called it.
        largest: Whether the most suspicious have the largest values.
        value: The score in SQL; NULL where undefined.
        columns: Score columns that it is made of, beside shard and key.
        functions: Functions of ``value``; see :meth:`ScoreTable.stream`.
    """

    table: ScoreTable
    name: str
    largest: bool
    value: str
    columns: tuple[str, ...]
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @cached_property
    def sketch(self) -> QuantileSketch:
        """Its quantiles, over all rows that have the score."""
        sketch = QuantileSketch()
        for batch in self.stream("score"):
            sketch.update(floats(batch["score"]))
        return sketch

    def stream(
        self, select: str, rest: str = "", columns: Sequence[str] = (), **parameters: Any
    ) -> Iterator[pa.RecordBatch]:
        """Batches of a query of all columns beside ``score``, what the samples are ranked by."""
        return self.table.stream(
            f"SELECT {select} FROM (SELECT *, {self.value} AS score FROM scores) {rest}",
            list(dict.fromkeys([*columns, *self.columns, "shard", "key"])),
            parameters=parameters,
            functions=self.functions,
        )

    def query(self, select: str, rest: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of such a query."""
        return [row for b in self.stream(select, rest, **parameters) for row in b.to_pylist()]


def ranking(
    table: ScoreTable, by: str | None = None, *, largest: bool | None = None, seed: int = 0
) -> Ranking:
    """The ranking of that name.

    Args:
        table: The scores of a run.
        by: A score column, ``clipmem`` or ``random``; by default the shrunk score if there is one,
            else the literal one.
        largest: Which end is suspicious; by default high, but low for ``cmc_in`` and ``cmc_out``.
        seed: Of ``random``.

    Raises:
        ConfigError: There is no such column, or it holds no numbers.
    """
    by = by or table.verdict.ranks_by
    if by == "random":

        def draw(shards: pa.ChunkedArray, keys: pa.ChunkedArray) -> pa.Array:
            names = pc.binary_join_element_wise(shards, keys, "\0").to_pylist()
            return pa.array(uniform(seed, "select", names))

        value = "CASE WHEN multimem IS NOT NULL THEN draw(shard, key) END"
        return Ranking(table, by, True, value, ("multimem",), {"draw": draw})
    if by == "clipmem":
        pairs = tuple(c for c in table.columns if c.startswith(CLIPMEM))
        if table.columns and not pairs:
            raise ConfigError(f"{table.output}: the scores have no column {CLIPMEM}…")
        value = f"list_sum([{', '.join(map(quoted, pairs))}])"
        return Ranking(table, by, largest is not False, value, pairs)
    require_number(table, by)
    return Ranking(
        table, by, largest_first(by) if largest is None else largest, f"{quoted(by)}::DOUBLE", (by,)
    )


@dataclass(frozen=True)
class Rule:
    """Says which samples are removed; those without the score never are.

    Attributes:
        ranking: What they are ranked by.
        condition: In SQL, of ``score`` and the columns; true for those that are removed.
        parameters: Values for ``$name`` in it.
        columns: Score columns that it is made of, beside those of the ranking.
        null: The hypothesis that the list rejects, in words; "" where it rejects none.
    """

    ranking: Ranking
    condition: str
    parameters: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    null: str = ""


def above_threshold(ranking: Ranking, value: float, margin: float = 0.0) -> Rule:
    """Removes scores beyond a value by ``margin`` of their standard errors.

    With a margin, rows without a standard error (fewer than two models on a side) are not removed:
    nothing says how sure their score is.

    Raises:
        ConfigError: A margin is asked for, and the score has no standard error.
    """
    if margin < 0 or (margin and ranking.name not in STANDARD_ERRORS):
        raise ConfigError(
            f"a margin of {margin} standard errors by '{ranking.name}' is not possible: give one "
            f"above 0, by {' or '.join(STANDARD_ERRORS)}"
        )
    sign, than = ("-", ">") if ranking.largest else ("+", "<")
    sure = f"score {sign} $margin * {STANDARD_ERRORS[ranking.name]}" if margin else "score"
    parameters = {"value": float(value)} | ({"margin": float(margin)} if margin else {})
    return Rule(ranking, f"{sure} {than} $value", parameters)


def not_zero(table: ScoreTable, rate: float) -> Rule:
    """Removes what is memorized at all, with at most ``rate`` false ones expected on the list.

    Raises:
        ConfigError: The rate is none, or the run has no standard errors.
    """
    _require_rate(rate)
    if not table.verdict.q:
        raise ConfigError(
            f"{table.output}: no list with a known error, since its scores have no standard error; "
            "design.models: 4 gives one"
        )
    return Rule(
        ranking(table, table.verdict.ranks_by),
        f"{Q} <= $rate",
        {"rate": rate},
        (Q,),
        f"null: not memorized at all; of those listed, at most {100 * rate:g} % are expected false",
    )


def more_than(table: ScoreTable, bound: str, rate: float) -> Rule:
    """Removes what is memorized more than a bound, with at most ``rate`` false ones expected.

    Args:
        table: The scores of a run.
        bound: In units of the score, as ``0.3``, or a quantile of the shrunk scores, as ``80%``.
        rate: Share of the list that may be false.

    Raises:
        ConfigError: Bound or rate are none, or the run has no shrunk scores.
    """
    _require_rate(rate)
    if table.verdict.spread is None:
        raise ConfigError(
            f"{table.output}: --more-than needs shrunk scores, which take two pairs of models "
            "(design.kind: complementary_halves, design.models: 4)"
        )
    order = ranking(table, SHRUNK)
    value = _bound(order, bound)
    low, high = order.sketch.quantiles((0.0, 1.0))
    bins = Bins(float(low), float(high))
    told = order.stream(f"score, {SHRUNK_SD}", "WHERE score IS NOT NULL", [SHRUNK_SD])
    for batch in told:
        shrunk = floats(batch["score"])
        bins.update(shrunk, probability_below(shrunk, floats(batch[SHRUNK_SD]), value))
    found = threshold(bins, rate)
    said = f"null: not memorized more than {value:.3g}"
    if found is None:
        raise ConfigError(
            f"{table.output}: not even one sample can be listed as memorized more than {value:.3g} "
            f"with {100 * rate:g} % false ones; a lower bound, a higher --fdr or more models may"
        )
    said += f"; {100 * found[2]:.2g} % of those listed are expected false"
    return Rule(order, "score >= $value", {"value": found[0]}, (), said)


def _require_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ConfigError(f"--fdr {rate}: give a share between 0 and 1, such as 0.05")


def _bound(order: Ranking, bound: str) -> float:
    try:
        if not bound.endswith("%"):
            return float(bound)
        share = float(bound[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"--more-than {bound}: give a score, as 0.3, or a quantile, as 80%")
    return float(order.sketch.quantiles((share,))[0])


def top_n(ranking: Ranking, *, n: int | None = None, fraction: float | None = None) -> Rule:
    """Removes so many samples, or so large a share of those with the score; ties by shard and key.

    Raises:
        ConfigError: Not exactly one of both is given, or it is not possible.
    """
    if (n is None) == (fraction is None):
        raise ConfigError("a selection needs either a number of samples or a fraction")
    if fraction is not None and not 0 < fraction <= 1:
        raise ConfigError(f"a selection of fraction {fraction} is not possible: 0 < fraction <= 1")
    count = ranking.sketch.count
    last = find_threshold(ranking, n or max(1, round((fraction or 0.0) * count)))
    condition = (
        f"score {'>' if ranking.largest else '<'} $score "
        "OR (score = $score AND (shard, key) <= ($shard, $key))"
    )
    return Rule(ranking, condition, last)


def find_threshold(ranking: Ranking, n: int) -> dict[str, Any]:
    """``score``, ``shard`` and ``key`` of the n-th sample, in bounded memory for any n.

    A quantile sketch brackets it, and only the rows inside are sorted (Munro and Paterson 1980).

    Raises:
        ConfigError: The ranking is defined for fewer than n samples.
    """
    sketch, order = ranking.sketch, direction("score", ranking.largest)
    if not sketch.count:
        raise ConfigError(f"no sample has a score '{ranking.name}' that a list could go by")
    if not 1 <= n <= sketch.count:
        raise ConfigError(
            f"a list of {n} samples by '{ranking.name}' is not possible: the score is defined for "
            f"{sketch.count} samples; ask for 1 to {sketch.count}"
        )
    margin = 2 * sketch.rank_error
    while True:
        middle = 1 - n / sketch.count if ranking.largest else n / sketch.count
        edges = (max(0.0, middle - margin), min(1.0, middle + margin))
        low, high = sketch.quantiles(edges)
        # The bracket reaches to infinity where it touches an end of the ranking.
        low, high = (-np.inf if edges[0] <= 0 else low), (np.inf if edges[1] >= 1 else high)
        beyond = "score > $edge" if ranking.largest else "score < $edge"
        edge = high if ranking.largest else low
        (before,) = ranking.query("count(*) AS rows", f"WHERE {beyond}", edge=edge)
        place = n - 1 - before["rows"]
        inside = "WHERE score BETWEEN $low AND $high ORDER BY score"
        rows = ranking.query(
            "score, shard, key",
            f"{inside} {order}, shard, key LIMIT 1 OFFSET {max(0, place)}",
            low=low,
            high=high,
        )
        if rows and place >= 0:
            return rows[0]
        margin = max(4 * margin, 1e-3)


@dataclass(frozen=True)
class Selection:
    """What was written.

    Attributes:
        folder: ``<output>/selections/<name>``.
        parts: URLs of the files of each list.
        counts: ``removed``, ``kept``, and ``without_score`` among the kept.
        null: See :class:`Rule`.
    """

    folder: str
    parts: Mapping[Kind, Sequence[str]]
    counts: Mapping[str, int]
    null: str = ""


def write_selection(name: str, rule: Rule, about: Mapping[str, Any] | None = None) -> Selection:
    """Write both lists; those of an earlier selection of this name are replaced.

    Columns: key, shard, index, label (if there is one), score (what was ranked by), se (if it has
    one), percentile (0..100 among all rows with the score), multimem, cmc_out,
    attribution_<modality>…, and main_modality, the one that adds most to MultiMem.

    Args:
        name: Letters, digits, and ``._-``.
        rule: What is removed.
        about: How the rule came about, for ``selection.json``.

    Raises:
        ConfigError: The name is none.
        StorageError: A file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"selection '{name}': use letters, digits, and ._- in its name")
    table, ranking = rule.ranking.table, rule.ranking
    storage, sketch = table.storage, ranking.sketch
    folder = storage.join(table.output, "selections", name)
    storage.remove(folder, recursive=True)
    parts_of_name = table.shard_parts
    lists = {kind: _List(storage, storage.join(folder, kind), parts_of_name) for kind in KINDS}
    select, columns = _reasons(table, ranking)
    removed = f"coalesce({rule.condition}, false) AS removed"
    without = 0
    columns = [*columns, *rule.columns]
    for batch in ranking.stream(f"{select}, {removed}", columns=columns, **rule.parameters):
        percentile = pa.array(sketch.percentiles(floats(batch["score"])), from_pandas=True)
        place = batch.schema.get_field_index("percentile")
        rows = batch.drop_columns("removed").set_column(place, "percentile", percentile)
        without += rows["score"].null_count
        lists["remove"].add(rows.filter(batch["removed"]))
        lists["keep"].add(rows.filter(pc.invert(batch["removed"])))
    parts: dict[Kind, Sequence[str]] = {kind: one.close() for kind, one in lists.items()}
    counts = {
        "removed": lists["remove"].rows,
        "kept": lists["keep"].rows,
        "without_score": without,
    }
    content = {"by": ranking.name, **(about or {}), **counts}
    if rule.null:
        content["null"] = rule.null
    text = json.dumps(content, indent=1).encode()
    storage.write_atomic(storage.join(folder, "selection.json"), text)
    return Selection(folder, parts, counts, rule.null)


def write_datacomp(storage: Storage, parts: Sequence[str], url: str) -> int:
    """Write a list as DataComp's sorted ``.npy`` of dtype ``u8,u8``.

    Each sample must be known by a uid of 32 hexadecimal digits: its key, or the last part of it.

    Args:
        storage: Where everything lies.
        parts: Files of one list.
        url: Where the array goes.

    Returns:
        Number of uids.

    Raises:
        ConfigError: A key is no such uid; names it.
    """
    halves: list[npt.NDArray[np.void]] = []
    for part in parts:
        keys = read_parquet(storage.read_bytes(part), part, ["key"])["key"].to_pylist()
        halves.append(np.array([_uid(key) for key in keys], dtype=UID_TYPE))
    uids = np.sort(np.concatenate(halves)) if halves else np.empty(0, UID_TYPE)
    buffer = BytesIO()
    np.save(buffer, uids, allow_pickle=False)
    storage.write_atomic(url, buffer.getvalue())
    return len(uids)


@dataclass(frozen=True)
class Wanted:
    """What is removed; exactly one of ``top``, ``percent``, ``above`` and ``random`` is given.

    Args:
        by: What ranks; see :func:`ranking`.
        top: So many samples.
        percent: So many in a hundred of those that have the score.
        above: All that score above this (below, where low is suspicious).
        se_margin: With ``above``: by so many standard errors.
        random: So many, drawn at random.
        seed: Of the draw.
        more_than: All that are memorized more than this, a score or a quantile (``80%``), with
            ``fdr`` of false ones.
        fdr: Share of false ones; alone, of all that are memorized at all.
    """

    by: str | None = None
    top: int | None = None
    percent: float | None = None
    above: float | None = None
    se_margin: float = 0.0
    random: int | None = None
    seed: int = 0
    more_than: str | None = None
    fdr: float | None = None

    def rule(self, table: ScoreTable) -> Rule:
        """What it removes from a run.

        Raises:
            ConfigError: Not exactly one size is given, or it is not possible.
        """
        sizes = (self.top, self.percent, self.above, self.random, self.fdr)
        if sum(size is not None for size in sizes) != 1:
            raise ConfigError(
                "select: give exactly one of --top, --percent, --above, --random and --fdr"
            )
        if self.more_than is not None and self.fdr is None:
            raise ConfigError("select: --more-than needs --fdr, such as 0.05")
        if self.fdr is not None:
            if self.by is not None:
                raise ConfigError("select: --fdr ranks by the shrunk score; leave --by out")
            if self.more_than is None:
                return not_zero(table, self.fdr)
            return more_than(table, self.more_than, self.fdr)
        if self.se_margin and self.above is None:
            raise ConfigError("select: --se-margin belongs to --above")
        order = ranking(table, "random" if self.random is not None else self.by, seed=self.seed)
        if self.above is not None:
            return above_threshold(order, self.above, self.se_margin)
        if self.percent is not None:
            return top_n(order, fraction=self.percent / 100)
        return top_n(order, n=self.top if self.random is None else self.random)

    def about(self) -> dict[str, Any]:
        """What was asked for, for ``selection.json``."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        drawn = self.random is not None or self.by == "random"
        shown = {"seed": drawn, "se_margin": bool(self.se_margin), "by": False}
        return {"asked": {name: value for name, value in given.items() if shown.get(name, True)}}


def select_samples(
    table: ScoreTable, wanted: Wanted, name: str | None = None, *, datacomp: bool = False
) -> Selection:
    """Write the lists under the run's ``selections/``.

    Args:
        table: The scores of a run.
        wanted: What is removed.
        name: Of the selection; by default what ranks, ``multimem`` for the shrunk score too.
        datacomp: Also write ``keep.npy`` and ``remove.npy``.

    Raises:
        ConfigError: It is not possible, nothing is scored yet, or keys are no uids for DataComp.
        StorageError: A file cannot be read or written.
    """
    if not table.score_files:
        raise ConfigError(f"{table.output}: nothing is scored yet; run `multimem audit` first")
    rule = wanted.rule(table)
    # One folder of that name, whether there are models enough to shrink or not.
    name = name or rule.ranking.name.removesuffix("_shrunk")
    selection = write_selection(name, rule, wanted.about())
    for kind in KINDS if datacomp else ():
        url = table.storage.join(selection.folder, f"{kind}.npy")
        write_datacomp(table.storage, selection.parts[kind], url)
    return selection


class _List:
    """Parts of a list, each atomic and at most about a million rows long."""

    def __init__(self, storage: Storage, folder: str, shard_parts: int) -> None:
        self._storage, self._folder = storage, folder
        # Whoever reads the list beside other shards must not take one for the other.
        self._about = {PARTS: str(shard_parts).encode()}
        self._waiting: list[pa.RecordBatch] = []
        self._urls: list[str] = []
        self.rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        self.rows += rows.num_rows
        self._waiting.append(rows)
        if sum(batch.num_rows for batch in self._waiting) >= PART_ROWS:
            self._write()

    def close(self) -> list[str]:
        if not self._urls or any(batch.num_rows for batch in self._waiting):
            self._write()
        return self._urls

    def _write(self) -> None:
        buffer = BytesIO()
        rows = pa.Table.from_batches(self._waiting)
        rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), **self._about})
        pq.write_table(rows, buffer, compression="zstd")
        url = self._storage.join(self._folder, f"{len(self._urls):05d}.parquet")
        self._storage.write_atomic(url, buffer.getvalue())
        self._urls.append(url)
        self._waiting = []


def _reasons(table: ScoreTable, ranking: Ranking) -> tuple[str, list[str]]:
    """What is told of a sample, in SQL, and the columns that takes."""
    known, se = set(table.columns), STANDARD_ERRORS.get(ranking.name)
    plain = [column for column in _PLAIN if column in known]
    scores = [column for column in ("multimem", "cmc_out") if column in known]
    parts = [f"{ATTRIBUTION}{name}" for name in table.modalities]
    values = ", ".join(map(quoted, parts))
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in table.modalities)
    select = [
        *map(quoted, plain),
        "score",
        *([f"{se} AS se"] if se else []),
        "NULL AS percentile",
        *map(quoted, scores + parts),
        (
            f"CASE WHEN greatest({values}) IS NOT NULL THEN "
            f"[{names}][list_position([{values}], greatest({values}))] END AS main_modality"
        ),
    ]
    return ", ".join(select), [*plain, *scores, *parts, *([se] if se else [])]


def _uid(key: str) -> tuple[int, int]:
    name = key.rpartition("/")[2]
    if UID.fullmatch(name) is None:
        raise ConfigError(
            f"key '{key}' is no uid of 32 hexadecimal digits, which DataComp's lists need; use the "
            "Parquet selection, or name the samples by their uid"
        )
    return int(name[:16], 16), int(name[16:], 16)
