"""Which samples make up the held-out set: found in as few shards as hold enough of them.

Shards are visited in an order that follows from their names until ``held_out.max_samples`` held-out
samples were met, so a small H of a huge data set is found in a few shards, and is the same H
whoever looks. A small data set is looked through by the driver itself, before a worker process
could have started; what takes longer is left to tasks.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.design.hashing import uniform
from multimem_ray.distributed.executor import LOCAL, Executor, Row
from multimem_ray.errors import HeldOutError, SampleError
from multimem_ray.own_files import HELD_OUT_AGAIN, read_own
from multimem_ray.progress import Progress
from multimem_ray.run import Run, Shards
from multimem_ray.sample import Sample
from multimem_ray.scoring.source import Source
from multimem_ray.storage import FileInfo, Storage
from multimem_ray.store.footers import RUN
from multimem_ray.store.names import means_file
from multimem_ray.store.tables import read_table

ALONE_S = 3.0
"""Seconds after which the driver leaves the looking to tasks."""

FEWEST = 2

CLAIMS = "claims"


@dataclass(frozen=True)
class Chosen:
    """Held-out samples of one shard, by key."""

    shard: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """All held-out samples of one shard."""

    number: int
    keys: list[str]
    labels: list[str]


def is_summarized(run: Run) -> bool:
    """Whether the mean vectors of this very run are there."""
    return means_name(run) is not None


def means_name(run: Run) -> str | None:
    """The file of the mean vectors of this very run; None if they are not there."""
    url = run.path("held_out", "held_out.json")
    if not run.storage.exists(url):
        return None
    known = read_own(run.storage, url, HELD_OUT_AGAIN, fingerprint=str)
    return means_file(known) if known["fingerprint"] == run.fingerprint else None


def parts_folder(run: Run) -> str:
    """Where the held-out samples lie that are embedded so far."""
    return run.path("held_out", "parts", run.fingerprint)


def plan_held_out(
    run: Run,
    shards: Shards,
    progress: Progress,
    source: Source,
    executor: Executor = LOCAL,
) -> list[Chosen]:
    """What is still to be embedded of H; the plan is stored first.

    Args:
        source: Where the samples come from.

    Raises:
        HeldOutError: No sample is held out, or too few of those that are have some modality.
    """
    if is_summarized(run):
        return []
    # Whoever began something before this driver started is dead, or stops.
    for name in run.storage.folders(parts_folder(run)):
        if name.startswith(CLAIMS):
            run.storage.discard(run.storage.join(parts_folder(run), name), recursive=True)
    known = load_plan(run)
    if known:
        return known
    chosen = _choose(run, shards, progress, executor, source)
    if not run.is_stored:
        require_modalities(run, chosen)
    rows = [(item.shard, key) for item in chosen for key in item.keys]
    table = pa.table(
        {"shard": [row[0] for row in rows], "key": [row[1] for row in rows]},
        metadata={RUN: run.fingerprint.encode()},
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    run.storage.write_atomic(run.path("held_out", "keys.parquet"), buffer.getvalue())
    return chosen


def require_modalities(run: Run, chosen: Sequence[Chosen]) -> None:
    """Raise HeldOutError if a modality is in fewer than two of the held-out samples.

    One is compared with the mean of the others, so that one alone says nothing. Samples are looked
    at until there are two of each, which are the first few unless a modality is rare.
    """
    counts = dict.fromkeys(run.modalities, 0)
    for shard in chosen:
        keys = frozenset(shard.keys)
        for item in run.read(shard.shard):
            if isinstance(item, Sample) and item.key in keys:
                for name in run.modalities:
                    counts[name] += has_modality(run, item, name)
            if min(counts.values()) >= FEWEST:
                return
    rare = min(counts, key=lambda name: (counts[name], name))
    total = sum(len(shard.keys) for shard in chosen)
    raise HeldOutError(
        f"{counts[rare]} of {total} held-out samples have {rare} ({run.fields[rare]}), and it "
        f"takes {FEWEST}: raise held_out.fraction (now {run.config.held_out.fraction}) or "
        f"held_out.max_samples, name held_out.shards, or leave {rare} out of data.fields"
    )


def has_modality(run: Run, sample: Sample, name: str) -> bool:
    """Whether a sample has members of that modality, whatever is in them."""
    try:
        return bool(run.decoder.fields.value(sample, name))
    except SampleError:
        return False


def load_plan(run: Run) -> list[Chosen]:
    """The stored plan of this run; empty if there is none."""
    return read_plan(run.storage, run.output, run.fingerprint)


def read_plan(storage: Storage, output: str, fingerprint: str) -> list[Chosen]:
    """The plan that is stored in an output; empty if there is none, or one of another run.

    Raises:
        StorageError: It is damaged.
    """
    url = storage.join(output, "held_out", "keys.parquet")
    if not storage.exists(url):
        return []
    table = read_table(storage, url, HELD_OUT_AGAIN, ("shard", "key"))
    if (table.schema.metadata or {}).get(RUN) != fingerprint.encode():
        return []
    by_shard: dict[str, list[str]] = {}
    for shard, key in zip(*(column.to_pylist() for column in table.columns), strict=True):
        by_shard.setdefault(shard, []).append(key)
    return [Chosen(shard, tuple(keys)) for shard, keys in by_shard.items()]


def _choose(
    run: Run, shards: Shards, progress: Progress, executor: Executor, source: Source
) -> list[Chosen]:
    """At most ``max_samples`` held-out samples, from as few shards as hold them."""
    candidates = shards.held_out or shards.scored
    names = [run.shard_name(shard.url) for shard in candidates]
    places = uniform(run.config.design.seed, "held-out-shards", names)
    order = sorted(range(len(names)), key=lambda i: (places[i], candidates[i].url))
    limit, cap = run.config.held_out.max_samples, run.held_out_rule.cap()
    met = 0
    with progress.task("held-out set", len(order), unit="shards") as shown:
        for visited, found in enumerate(_found(source, candidates, order, executor), start=1):
            names_of = [f"{found.number}/{key}" for key in found.keys]
            labels = found.labels if run.config.held_out.balance else None
            cap.add(names_of, run.held_out_rule.rank(found.keys), labels)
            met += len(found.keys)
            shown.update(visited, f"{met} samples")
            if met >= limit:
                break
    by_shard: dict[int, list[str]] = {}
    for name in cap.chosen():
        number, _, key = name.partition("/")
        by_shard.setdefault(int(number), []).append(key)
    if not by_shard:
        stored = run.config.data.embeddings
        way = (
            f"raise held_out.fraction (now {run.config.held_out.fraction}) or name held_out.shards"
            if stored is None or stored.held_out is None
            else f"data.embeddings.held_out: {stored.held_out} names none of their samples"
        )
        raise HeldOutError(f"no sample of {len(order)} shards is held out; {way}")
    return [Chosen(candidates[i].url, tuple(sorted(keys))) for i, keys in sorted(by_shard.items())]


def _found(
    source: Source, candidates: Sequence[FileInfo], order: Sequence[int], executor: Executor
) -> Iterator[_Found]:
    """Held-out samples shard by shard, in this order."""
    until = time.monotonic() + ALONE_S
    for place, number in enumerate(order):
        if time.monotonic() > until:
            yield from _found_by_tasks(source, candidates, order[place:], executor)
            return
        yield _Found(number, *source.held_out_of(candidates[number].url))


def _found_by_tasks(
    source: Source, candidates: Sequence[FileInfo], order: Sequence[int], executor: Executor
) -> Iterator[_Found]:
    def find(row: Row) -> Row:
        keys, labels = source.held_out_of(row["url"])
        return {"number": row["number"], "keys": keys, "labels": labels}

    rows = [{"number": number, "url": candidates[number].url} for number in order]
    for row in executor.tasks(find, rows):
        yield _Found(row["number"], list(row["keys"]), list(row["labels"]))
