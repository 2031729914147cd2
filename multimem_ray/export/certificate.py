"""A certificate of what ``multimem reshard`` removed, that anybody with the shards can check.

    certificate.json    the rule, every shard before and after with its SHA-256, counts, scores
    certificate.md      the same for people
    removed.parquet     a row per removed sample: place, SHA-256, score before and after

What was removed is not taken from the list but from the shards themselves: samples of the old shard
that the new one lacks. All others must be there byte for byte, or no certificate is written. It is
no signature: whoever can change the files can write another one; keep its SHA-256 elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.design.shard_names import tail
from multimem_ray.errors import ConfigError, StorageError
from multimem_ray.export.certificate_text import EXAMPLES, REMOVED, as_markdown
from multimem_ray.own_files import read_own
from multimem_ray.results.table import ScoreTable
from multimem_ray.results.where import rows_where
from multimem_ray.run import load_run
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.reshard import SUMMARY
from multimem_ray.storage import Storage

FOLDER, NAME = "certificate", "certificate.json"
_AGAIN = "run `multimem reshard` again: only this shard is written anew"
_BLOCK = 1 << 20
_NUMBERS = {
    "multimem": "multimem",
    "multimem_low": "low",
    "multimem_high": "high",
    "multimem_q": "q",
}


@dataclass
class ShardPair:
    """A shard before and after; ``after`` is None where nothing of it is left."""

    before: dict[str, Any]
    after: dict[str, Any] | None
    samples: int
    kept: int
    failures: Sequence[str]
    removed: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Without the samples, which stand in a file of their own."""
        return {
            "before": self.before,
            "after": self.after,
            "samples": self.samples,
            "kept": self.kept,
            "removed": len(self.removed),
            "not_copied": list(self.failures),
        }


def certify(
    resharded: str,
    storage: Storage,
    *,
    run: str | None = None,
    after: str | None = None,
    out: str | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the certificate of a folder that ``multimem reshard`` wrote.

    Args:
        resharded: The folder.
        storage: Where everything lies.
        run: The run whose scores are those before; by default the one whose selection was removed.
        after: A run on models that were trained without the samples.
        out: Folder of the certificate; by default ``certificate/`` beside the shards.
        advance: Called with shards done and shards in all.

    Returns:
        The certificate; ``url`` says where it is.

    Raises:
        ConfigError: The folder is none of ``reshard``.
        StorageError: A shard is gone, another than was rewritten, or holds what it should not.
    """
    summary = _summary(resharded, storage)
    pairs = []
    markers = list(_markers(resharded, storage))
    for done, (url, marker) in enumerate(markers, 1):
        pairs.append(_pair(url, marker, storage))
        if advance is not None:
            advance(done, len(markers))
    rows = [row for pair in pairs for row in pair.removed]
    rule = _rule(summary, storage)
    run = run or rule.get("run")
    scores = {"before": _scored(rows, run, "before", storage) if run else None}
    scores["after"] = _scored(rows, after, "after", storage) if after else None
    folder = out or storage.join(resharded, FOLDER)
    table = _removed_table(rows)
    storage.write_atomic(storage.join(folder, REMOVED), table)
    content = {
        "certificate": "multimem_ray removal",
        "multimem_ray": metadata.version("multimem-ray"),
        "resharded": resharded,
        "rule": rule,
        "samples": sum(pair.samples for pair in pairs),
        "kept": sum(pair.kept for pair in pairs),
        "removed": len(rows),
        "scores": scores,
        "shards": [pair.as_json() for pair in pairs],
        "missing_shards": summary["missing"],
        "removed_samples": {"file": REMOVED, "sha256": hashlib.sha256(table).hexdigest()},
        "examples": rows[:EXAMPLES],
    }
    content["sha256"] = digest(content)
    text = json.dumps(content, indent=1, allow_nan=False).encode()
    storage.write_atomic(storage.join(folder, "certificate.md"), as_markdown(content).encode())
    storage.write_atomic(storage.join(folder, NAME), text)
    return content | {"url": storage.join(folder, NAME)}


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of a certificate without its own field ``sha256``."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def file_hash(url: str, storage: Storage) -> str:
    """SHA-256 of a file, read in blocks."""
    told = hashlib.sha256()
    with storage.open(url) as stream:
        while block := stream.read(_BLOCK):
            told.update(block)
    return told.hexdigest()


def sample_hash(sample: Sample) -> str:
    """SHA-256 over the members of a sample: name, NUL, length, NUL and bytes of each, by name."""
    told = hashlib.sha256()
    for name in sorted(sample.members):
        data = sample.members[name]
        told.update(f"{name}\0{len(data)}\0".encode())
        told.update(data)
    return told.hexdigest()


def _summary(resharded: str, storage: Storage) -> dict[str, Any]:
    url = storage.join(resharded, SUMMARY)
    if not storage.exists(url):
        raise ConfigError(
            f"{resharded}: no {SUMMARY}; name the folder that `multimem reshard --out` wrote, when "
            "it has finished"
        )
    return read_own(storage, url, "run `multimem reshard` again", list=dict, missing=list)


def _markers(resharded: str, storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    """URL and counts of each rewritten shard."""
    folder = storage.join(resharded, "reshard")
    for file in storage.list(folder):
        name = file.url.removeprefix(storage.join(folder, "")).removesuffix(".json")
        known = read_own(storage, file.url, _AGAIN, source=str, version=str, written=int)
        yield storage.join(resharded, name), known


def _pair(url: str, marker: dict[str, Any], storage: Storage) -> ShardPair:
    source = marker["source"]
    if not storage.exists(source):
        raise StorageError(
            f"{source}: gone; a certificate needs the shard as it was before, so write it first"
        )
    info = storage.info(source)
    if info.version != marker["version"]:
        raise StorageError(f"{source}: another file than was rewritten; {_AGAIN}")
    before = {"url": source, "version": info.version, "size": info.size}
    before["sha256"] = file_hash(source, storage)
    after = None
    left: dict[str, str] = {}
    if marker["written"]:
        after = {"url": url, "size": storage.info(url).size, "sha256": file_hash(url, storage)}
        left = {sample.key: sample_hash(sample) for sample in _samples(url, storage)}
    pair = ShardPair(before, after, 0, 0, marker.get("failures") or ())
    for sample in _samples(source, storage):
        pair.samples += 1
        told, kept = sample_hash(sample), left.pop(sample.key, None)
        if kept is None:
            place = {"shard": source, "key": sample.key, "index": sample.index}
            pair.removed.append({**place, "sha256": told})
        elif kept != told:
            raise StorageError(f"{url}: sample '{sample.key}' is not as in {source}; {_AGAIN}")
        else:
            pair.kept += 1
    if left:
        raise StorageError(f"{url}: holds '{next(iter(left))}', which {source} lacks; {_AGAIN}")
    return pair


def _samples(url: str, storage: Storage) -> Iterator[Sample]:
    return (item for item in read_shard(url, storage) if isinstance(item, Sample))


def _rule(summary: dict[str, Any], storage: Storage) -> dict[str, Any]:
    """By which rule: the list, and the selection that it is of."""
    listed = summary["list"]
    what = "all but the listed" if listed["keep"] else "the listed"
    told = {"removed": what, "list": listed.get("from"), "list_digest": listed.get("digest")}
    place = listed.get("from") or ""
    run, _, rest = place.partition("/selections/")
    if not rest:
        return told
    url = storage.join(run, "selections", rest.split("/")[0], "selection.json")
    if storage.exists(url):
        told["selection"] = read_own(storage, url, "run `multimem select` again")
    elif rest.split("/")[0] == "view":
        told["selection"] = {"by": "hand, in multimem view"}
    return told | ({"run": run} if storage.exists(storage.join(run, "run.json")) else {})


def _scored(
    rows: Sequence[dict[str, Any]], output: str, side: str, storage: Storage
) -> dict[str, Any]:
    """Scores of a run beside the rows, and what there is of them in all."""
    content = load_run(output, storage)
    table = ScoreTable(output, storage)
    parts = table.shard_parts
    known = {name: told for name, told in _NUMBERS.items() if name in table.columns}
    scored: dict[tuple[str, str], dict[str, Any]] = {}
    if table.score_files:
        asked = rows_where(table, "key", [r["key"] for r in rows], ["key", "shard", *known])
        scored = {(tail(r["shard"], parts), r["key"]): r for r in asked.to_pylist()}
    met, values = 0, []
    for row in rows:
        own = scored.get((tail(row["shard"], parts), row["key"]))
        row[side] = own and {told: own[name] for name, told in known.items()}
        met += own is not None
        if own is not None and own.get("multimem") is not None:
            values.append(own["multimem"])
    mean = sum(values) / len(values) if values else None
    about = {"run": output, "fingerprint": content.get("fingerprint")}
    return {**about, "scored": met, "not_scored": len(rows) - met, "mean": mean}


def _removed_table(rows: Sequence[dict[str, Any]]) -> bytes:
    number = pa.float64()
    sides = [(f"{side}_{n}", number) for side in ("before", "after") for n in _NUMBERS.values()]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("shard", "key")),
            ("index", pa.int64()),
            ("sha256", pa.string()),
            *sides,
        ]
    )
    flat = []
    for row in rows:
        told = {name: row[name] for name in ("shard", "key", "index", "sha256")}
        for side in ("before", "after"):
            told |= {f"{side}_{n}": value for n, value in (row.get(side) or {}).items()}
        flat.append(told)
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(flat, schema), buffer, compression="zstd")
    return buffer.getvalue()
