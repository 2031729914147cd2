"""Units of work on stored embeddings: what is scored at once and committed by one marker.

    rows      a file of each model, or a stretch of it, with the same keys in the same order
    bucket    the samples, of all files that have no such counterpart, whose keys hash to a number

A unit takes the place of a shard: it has a name from which that of its score file follows, and a
version that changes with its files. Those of our own files are called as the shards they came
from. All units of a run lie in ``units.parquet`` in its output, where the workers find them.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from multimem_ray.arrow_files import READ_ERRORS, read_parquet
from multimem_ray.config import digest
from multimem_ray.embeddings.files import Place
from multimem_ray.embeddings.sets import Piece
from multimem_ray.own_files import damaged, parsed
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo

BUCKET_BYTES = 64 << 20
"""Bytes of vectors, of all models together, in one bucket of a join."""

_NAME = "units.parquet"
_ABOUT = b"multimem_ray"
_AGAIN = "remove it and run again: it is written anew"


@dataclass(frozen=True)
class Unit:
    """What is scored and committed at once.

    Args:
        info: Name, size and version, as of a shard.
        rows: Number of rows; of a bucket, what is expected.
        places: Of each model, its rows; empty for a bucket.
        bucket: Number of the bucket, or -1.
    """

    info: FileInfo
    rows: int
    places: Sequence[Place]
    bucket: int = -1


@dataclass(frozen=True)
class Spec:
    """What holds for all units.

    Args:
        columns: Per model, name in a block to the column it comes from.
        widths: Per model, numbers of a row, the same for every modality.
        views: Per model.
        flagged: Whether a column tells what is held out.
        join: Name of the join's folder.
        buckets: Number of buckets.
    """

    columns: Sequence[Mapping[str, str]]
    widths: Sequence[int]
    views: Sequence[int]
    flagged: bool
    join: str
    buckets: int


class Units:
    """All units of a run.

    Args:
        spec: What holds for all.
        units: In the order in which they are scored.
        joined: Per model, what is to be spilled into buckets first.
    """

    def __init__(
        self, spec: Spec, units: Sequence[Unit], joined: Sequence[Sequence[Place]]
    ) -> None:
        self.spec, self.units, self.joined = spec, units, joined

    @cached_property
    def _by_url(self) -> dict[str, Unit]:
        return {unit.info.url: unit for unit in self.units}

    def of(self, url: str) -> Unit:
        """The unit of that name."""
        return self._by_url[url]

    def store(self, run: Run) -> None:
        """Write them for the workers."""
        rows = [
            {
                **asdict(unit.info),
                "rows": unit.rows,
                "bucket": unit.bucket,
                "places": json.dumps([asdict(place) for place in unit.places]),
            }
            for unit in self.units
        ]
        about = {
            "spec": asdict(self.spec),
            "joined": [[asdict(place) for place in places] for places in self.joined],
        }
        table = pa.Table.from_pylist(rows).replace_schema_metadata(
            {_ABOUT: json.dumps(about).encode()}
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        run.storage.write_atomic(run.path(_NAME), buffer.getvalue())


def load_units(run: Run) -> Units:
    """The units of an opened run."""
    url = run.path(_NAME)
    try:
        table = read_parquet(run.storage.read_bytes(url), url)
        about = parsed(table.schema.metadata[_ABOUT], url, _AGAIN, joined=list, spec=dict)
        units = [
            Unit(
                FileInfo(row["url"], row["size"], row["version"]),
                row["rows"],
                [Place(**place) for place in json.loads(row["places"])],
                row["bucket"],
            )
            for row in table.to_pylist()
        ]
        joined = [[Place(**place) for place in places] for places in about["joined"]]
        return Units(Spec(**about["spec"]), units, joined)
    except (*READ_ERRORS, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(url, error, _AGAIN) from error


def make_units(
    pieces: Sequence[Sequence[Piece]],
    columns: Sequence[Mapping[str, str]],
    widths: Sequence[int],
    views: Sequence[int],
    flagged: bool,
    modalities: int,
) -> Units:
    """Units of what was found.

    Args:
        pieces: Per model.
    """
    groups, rest = _aligned(pieces)
    units = [unit for group in groups for unit in _stretches(group)]
    names = Counter(unit.info.url for unit in units)
    units = [unit if names[unit.info.url] == 1 else _plainly_named(unit) for unit in units]
    joined = [
        [piece.place(first, end) for piece in of_model for first, end in pairwise(piece.starts)]
        for of_model in rest
    ]
    version = digest(
        [[(p.file.url, p.file.size, p.file.version) for p in of_model] for of_model in rest]
    )
    rows = max((sum(p.rows for p in of_model) for of_model in rest), default=0)
    row_bytes = 4 * sum(widths) * modalities
    buckets = -(-rows * row_bytes // BUCKET_BYTES) if rows else 0
    units += [
        Unit(
            FileInfo(f"joined/{number:05d}-of-{buckets:05d}", rows * row_bytes // buckets, version),
            rows // buckets,
            (),
            number,
        )
        for number in range(buckets)
    ]
    spec = Spec(columns, widths, views, flagged, f"join-{version}-{buckets}", buckets)
    return Units(spec, units, joined)


def _aligned(
    pieces: Sequence[Sequence[Piece]],
) -> tuple[list[list[Piece]], list[list[Piece]]]:
    """Files with the same samples in all models, and per model what is left.

    Where all files say what shard they are of, as ours do, samples are known by it and their keys.
    """
    ours = all(piece.about is not None for of_model in pieces for piece in of_model)

    def samples(piece: Piece) -> tuple[str, str]:
        return (piece.about.shard if ours and piece.about else "", piece.keys)

    by_samples = [{samples(piece): piece for piece in of_model} for of_model in pieces]
    twice = {
        who
        for of_model in pieces
        for who, count in Counter(map(samples, of_model)).items()
        if count > 1
    }
    groups = [
        [known[samples(piece)] for known in by_samples]
        for piece in pieces[0]
        if samples(piece) not in twice and all(samples(piece) in known for known in by_samples)
    ]
    taken = {samples(group[0]) for group in groups}
    return groups, [[p for p in of_model if samples(p) not in taken] for of_model in pieces]


def _stretches(group: Sequence[Piece]) -> list[Unit]:
    """A group of files, cut where the first can be and the others as well."""
    first = group[0]
    starts = list(first.starts)
    for piece in group[1:]:
        if piece.offsets:
            starts = [start for start in starts if start in set(piece.starts)]
    shards = {piece.about.shard for piece in group if piece.about is not None}
    ours = len(shards) == 1 and all(piece.about is not None for piece in group)
    named = shards.pop() if ours else first.file.url
    version = digest([(p.file.url, p.file.size, p.file.version) for p in group])
    size = sum(piece.file.size for piece in group)
    units = []
    for begin, end in pairwise(starts):
        url = named if len(starts) == 2 else f"{named}#{begin}-{end}"
        share = size * (end - begin) // first.rows
        places = [piece.place(begin, end) for piece in group]
        units.append(Unit(FileInfo(url, share, version), end - begin, places))
    return units


def _plainly_named(unit: Unit) -> Unit:
    """Two files that say they come from one shard are told apart by their own names."""
    place = unit.places[0]
    url = f"{place.url}#{place.first}-{place.end}"
    return Unit(FileInfo(url, unit.info.size, unit.info.version), unit.rows, unit.places)
