"""Samples by key, URL or content: were they trained on, what is their score, who is like them.

Everything is answered from the run's own files. Keys and contents of scored samples stand in the
scores; URLs, and the names of held-out samples, in the catalogue, which is read from the shards
once (:mod:`multimem_ray.results.catalogue`). What cannot be answered is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from multimem_ray.arrow_files import read_parquet
from multimem_ray.design.shard_names import tail
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.progress import Progress
from multimem_ray.results.catalogue import URL, Catalogue
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.verdict import ERROR, HIGH, LOW, SHRUNK, Q
from multimem_ray.results.where import rows_where
from multimem_ray.run import Run, load_run
from multimem_ray.scoring.held_out_plan import read_plan
from multimem_ray.storage import Storage
from multimem_ray.store.schema import ATTRIBUTION
from multimem_ray.store.tables import read_duplicates

By: TypeAlias = Literal["key", "url", "hash"]
_NAMED = 20  # duplicates of a sample
_ESTIMATED = 200_000  # scores from which a missing verdict can be estimated while one waits
_PLAIN = ("key", "shard", "index", "label", "group", "split")
_NUMBERS = {
    "multimem": "multimem",
    SHRUNK: "shrunk",
    ERROR: "error",
    LOW: "low",
    HIGH: "high",
    Q: "q",
    "cmc_out": "cmc_out",
    "attack_rmia": "attack_risk",
}
_LOST = "not in the run's scores, errors or held-out set"


@dataclass(frozen=True)
class Asked:
    """One thing that is looked up.

    Args:
        text: A key, a URL, or 24 hex digits of a content.
        shard: Name or URL of the shard, where a key stands in several.
    """

    text: str
    shard: str | None = None


@dataclass(frozen=True)
class Lookup:
    """What a run knows of some samples.

    Args:
        by: How they were named.
        matches: One mapping per sample: ``query``, ``key``, ``shard``, ``index``, ``state``
            (``scored``, ``held_out`` or ``error``), ``trained_on`` and ``models_in``,
            ``models_out``; of scored ones the numbers, ``attribution`` and ``duplicates``.
        misses: What was asked for and is no sample that the run knows of.
        notes: What the run cannot answer, and what would let it.
    """

    by: str
    matches: Sequence[dict[str, Any]]
    misses: Sequence[str]
    notes: Sequence[str] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """As one JSON object, with counts."""
        states = [match["state"] for match in self.matches]
        counts = {name: states.count(name) for name in ("scored", "held_out", "error")}
        return {
            "by": self.by,
            "counts": {**counts, "missed": len(self.misses)},
            "matches": list(self.matches),
            "misses": list(self.misses),
            "notes": list(self.notes),
        }


def lookup(
    output: str,
    asked: Iterable[str | Asked],
    *,
    by: By = "key",
    field: str = URL,
    storage: Storage | None = None,
    progress: Progress | None = None,
) -> Lookup:
    """Look samples up in a run.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        asked: Keys, URLs or contents; an ``Asked`` says which shard is meant, too.
        by: What they are.
        field: JSON field that holds the URL.
        storage: How to reach the run.
        progress: Told while shards have to be read.

    Raises:
        ConfigError: Nothing is asked for, or the run cannot tell samples by that.
        StorageError: There is no run, or shards have to be read and are not there.
    """
    storage = storage or Storage()
    queries = [Asked(item) if isinstance(item, str) else item for item in asked]
    queries = list(dict.fromkeys(queries))
    if not queries:
        raise ConfigError("lookup: nothing is asked for; give keys, or a --list of them")
    finder = Finder(output, storage)
    if by == "key":
        places = [(query, query.text, query.shard) for query in queries]
    else:
        column = field if by == "url" else "content"
        places = finder.named(queries, column, progress)
    matches, met = finder.matches(places)
    misses = [query.text for query in queries if query not in met]
    return Lookup(by, matches, misses, finder.notes(misses))


class Finder:
    """Answers from a run's own files.

    Args:
        output: Folder or ``s3://`` prefix of the run.
        storage: How to reach it.
    """

    def __init__(self, output: str, storage: Storage) -> None:
        content = load_run(output, storage)
        self._run, self._fingerprint = Run.from_json(content), str(content.get("fingerprint"))
        self._table = ScoreTable(output, storage)
        self._catalogue = Catalogue(output, storage)
        self._stored = self._run.is_stored

    def named(
        self, queries: Sequence[Asked], column: str, progress: Progress | None
    ) -> list[tuple[Asked, str, str | None]]:
        """(query, key, shard) of the samples whose URL or content is asked for."""
        texts = [query.text for query in queries]
        by_content = column == "content"
        if self._stored:
            raise ConfigError("lookup: stored embeddings know samples by their keys alone")
        if by_content and not self._catalogue.whole and self._grouped_by_content:
            rows = rows_where(self._table, "group", texts, ["group", "key", "shard"])
            column = "group"
        else:
            kept = self._catalogue.ensure([] if by_content else [column], progress)
            rows = kept.where(column, texts, ["key", "shard"])
        of = defaultdict(list)
        for row in rows.to_pylist():
            of[row[column]].append((row["key"], row["shard"]))
        return [(query, *place) for query in queries for place in of[query.text]]

    @property
    def _grouped_by_content(self) -> bool:
        return self._run.config.design.group == "content"

    def matches(
        self, places: Sequence[tuple[Asked, str, str | None]]
    ) -> tuple[list[dict[str, Any]], set[Asked]]:
        """What is known of each place, in their order, and which queries that answers."""
        keys = {key for _, key, _ in places}
        of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in (*self._scored(keys), *self._unscored(keys)):
            of[row["key"]].append(row)
        matches, met = [], set()
        for query, key, shard in places:
            rows = [row for row in of[key] if shard is None or self._same(row["shard"], shard)]
            matches += [{"query": query.text, **row} for row in rows]
            met |= {query} if rows else set()
        return matches, met

    def _same(self, one: str, other: str) -> bool:
        return self._shard_name(one) == self._shard_name(other)

    def _scored(self, keys: set[str]) -> list[dict[str, Any]]:
        table = self._table
        if not table.score_files:
            return []
        there = set(table.columns if self._judged else table.stored)
        numbers = [name for name in _NUMBERS if name in there]
        shares = [f"{ATTRIBUTION}{name}" for name in table.modalities]
        columns = [*(c for c in _PLAIN if c in there), *numbers, *shares, "member"]
        rows = rows_where(table, "key", keys, columns).to_pylist()
        copies, near = self._copies(rows), self._near(rows)
        return [self._told(row, numbers, copies, near) for row in rows]

    @cached_property
    def _summary(self) -> dict[str, Any]:
        """The run's summary; {} if it is of other rows than there are now."""
        summary = self._table.document("summary.json")
        of = (summary.get("verdict") or {}).get("of")
        return summary if of == self._table.version else {}

    @property
    def _judged(self) -> bool:
        """Whether intervals and q-values are known, or cheap to estimate."""
        rows = int(self._table.version["rows"])
        return bool(self._summary) or rows <= _ESTIMATED

    def _told(
        self,
        row: dict[str, Any],
        numbers: Sequence[str],
        copies: dict[str, dict[str, Any]],
        near: dict[tuple[str, str], dict[str, Any]],
    ) -> dict[str, Any]:
        ids = self._run.design.model_ids()
        member = list(row["member"] or [])
        told = {name: row.get(name) for name in _PLAIN if name != "group"}
        place = (row["shard"], row["key"])
        alike = [g for g in (copies.get(row.get("group") or ""), near.get(place)) if g]
        named = ((self._shard_name(s["shard"]), s) for group in alike for s in group["samples"])
        samples = {(name, s["key"]): s for name, s in named}
        for name in (self._shard_name(row["shard"]), None):
            samples.pop((name, row["key"]), None)
        return {
            **told,
            "state": "scored",
            "content": row.get("group") if self._grouped_by_content else None,
            "trained_on": any(member) if member else None,
            "models_in": [name for name, seen in zip(ids, member, strict=False) if seen],
            "models_out": [name for name, seen in zip(ids, member, strict=False) if not seen],
            **{_NUMBERS[name]: row[name] for name in numbers},
            "attribution": {n: row[f"{ATTRIBUTION}{n}"] for n in self._table.modalities},
            "duplicates": {
                "count": max([0, *(group["count"] - 1 for group in alike)]),
                "samples": list(samples.values())[:_NAMED],
            },
        }

    def _copies(self, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Scored samples of the same groups, by group; groups of one are left out."""
        groups = {row["group"] for row in rows if row.get("group") is not None}
        if (self._summary.get("duplicates") or {}).get("groups") == 0:
            return {}  # then the column need not be read
        samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
        columns = ["group", "shard", "key"]
        for row in rows_where(self._table, "group", groups, columns).to_pylist() if groups else []:
            samples[row.pop("group")].append(row)
        return {
            name: {"count": len(group), "samples": group[: _NAMED + 1]}
            for name, group in samples.items()
            if len(group) > 1
        }

    def _near(self, rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
        """Groups of the near-duplicates that `multimem duplicates` found, by shard and key."""
        table = read_duplicates(self._table.storage, self._table.output) if rows else None
        if table is None:
            return {}
        keys = pa.array([row["key"] for row in rows], pa.string())
        groups = table.filter(pc.is_in(table["key"], value_set=keys))["group"].unique()
        members: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in table.filter(pc.is_in(table["group"], value_set=groups)).to_pylist():
            members[row["group"]].append({"shard": row["shard"], "key": row["key"]})
        groups_of = {
            (self._shard_name(one["shard"]), one["key"]): group
            for group in members.values()
            for one in group
        }
        near = {}
        for row in rows:
            # Vectors of unknown shards have a key alone.
            of = [(self._shard_name(row["shard"]), row["key"]), (None, row["key"])]
            group = next((groups_of[place] for place in of if place in groups_of), None)
            if group is not None:
                whole = {"count": len(group), "samples": group[: _NAMED + 1]}
                near[row["shard"], row["key"]] = whole
        return near

    def _shard_name(self, shard: str | None) -> str | None:
        return None if shard is None else tail(shard, self._run.shard_parts)

    def _unscored(self, keys: set[str]) -> list[dict[str, Any]]:
        """Held-out samples, and those in ``errors/``."""
        asked = pa.array(sorted(keys), pa.string())
        known: dict[tuple[str, str], dict[str, Any]] = {}
        for batch in self._table.error_batches():
            for row in batch.filter(pc.is_in(batch["key"], value_set=asked)).to_pylist():
                reason = {name: row[name] for name in ("stage", "error", "detail")}
                known[row["shard"], row["key"]] = _state(row, "error") | {"error": reason}
        for row in self._held_out(asked):
            told = _state(row, "held_out")
            none = {"trained_on": False, "models_in": []}
            models_out = self._run.design.model_ids()
            known[row["shard"], row["key"]] = told | none | {"models_out": models_out}
        return list(known.values())

    def _held_out(self, asked: pa.Array) -> list[dict[str, Any]]:
        catalogue, keys = self._catalogue, asked.to_pylist()
        if not self._stored and catalogue.whole:
            kept = catalogue.where("key", keys, ["shard", "index", "held_out"])
            rows: list[dict[str, Any]] = kept.filter(kept["held_out"]).to_pylist()
            return rows
        plan = read_plan(self._table.storage, self._table.output, self._fingerprint)
        wanted = set(keys)
        return [
            {"key": key, "shard": chosen.shard}
            for chosen in plan
            for key in chosen.keys
            if key in wanted
        ]

    def notes(self, misses: Sequence[str]) -> list[str]:
        """What could not be answered, and why."""
        told = []
        if not self._judged:
            told.append(
                "no intervals and q-values: they are of all scores together, and the summary is "
                "missing or older than they are; `multimem report` writes it"
            )
        if misses and not self._stored and not self._catalogue.whole:
            told.append(
                f"{len(misses)} are {_LOST}. Beyond held_out.max_samples the run does not keep "
                "who is held out: `multimem catalogue` asks the shards, once, and tells those from "
                "samples that were never there"
            )
        return told


def _state(row: dict[str, Any], state: str) -> dict[str, Any]:
    return {
        "key": row["key"],
        "shard": row["shard"],
        "index": row.get("index"),
        "state": state,
        "trained_on": None,
        "models_in": [],
        "models_out": [],
    }


def read_asked(url: str, storage: Storage, column: str) -> list[Asked]:
    """What a list asks for: a text file with one on each line, or Parquet.

    Args:
        column: Of the Parquet file; ``shard`` counts where it is there and keys are asked for.

    Raises:
        ConfigError: It is neither, or lacks the column.
    """
    if not url.endswith(".parquet"):
        try:
            lines = storage.read_bytes(url).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{url}: neither Parquet nor text with one on each line") from error
        return [Asked(text) for text in (one.strip() for one in lines) if text]
    try:
        table = read_parquet(storage.read_bytes(url), url)
    except pa.ArrowException as error:
        raise StorageError(f"{url}: cannot be read as Parquet ({error})") from error
    if column not in table.column_names:
        raise ConfigError(f"{url}: no column '{column}'; it has {', '.join(table.column_names)}")
    texts = table[column].cast(pa.string()).to_pylist()
    by_shard = column == "key" and "shard" in table.column_names
    shards = table["shard"].to_pylist() if by_shard else [None] * len(texts)
    pairs = zip(texts, shards, strict=True)
    return [Asked(text, shard) for text, shard in pairs if text is not None]
