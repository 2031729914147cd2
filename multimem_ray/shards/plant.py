"""Plants misalignment that is known, so that an audit can be checked against the truth.

A copy of the shards is made in which a fraction of the samples got one modality (its caption, its
sound, its picture) from another sample, of another label where there are labels. Which samples,
which modality and which donor follow from keyed hashes of the keys: the same call gives the same
copy. The first pass over the shards finds the hash value below which exactly the wanted number of
samples lies; the second copies shard by shard, with one shard and at most one other in memory.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from multimem_ray.design.hashing import seed_of, uniform
from multimem_ray.errors import ConfigError
from multimem_ray.modalities.fields import Fields
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.contents import Alternatives, Item, look, replaced
from multimem_ray.shards.copies import copies
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import create_shard
from multimem_ray.storage import FileInfo, Storage

logger = logging.getLogger(__name__)

TRUTH = "planted.parquet"
SEARCHED_SHARDS = 16  # other shards looked through for a donor before a sample is left alone

SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("planted", pa.bool_(), nullable=False),
        pa.field("modality", pa.string()),
        pa.field("donor_key", pa.string()),
        pa.field("label", pa.string()),
        pa.field("donor_label", pa.string()),
    ]
)


@dataclass
class PlantReport:
    """What was planted.

    Attributes:
        truth: URL of the truth: a row per sample, ``shard`` being the copy's name in ``out``.
        shards: URLs of the copies.
        missing: Shards that were named and are not there.
        failures: What could not be read, and is not in the copy.
        samples: Number of samples copied.
        wanted: Number of samples to plant: ``round(fraction * samples)``.
        planted: Number of them planted; fewer if too few have two modalities or a donor.
        by_modality: Number of samples planted in each modality.
    """

    truth: str
    shards: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    samples: int = 0
    wanted: int = 0
    planted: int = 0
    by_modality: Counter[str] = field(default_factory=Counter)


def plant(
    spec: str | Sequence[str],
    out: str,
    *,
    fraction: float,
    fields: Mapping[str, str],
    modality: str | None = None,
    label: str | None = None,
    seed: int = 0,
    storage: Storage | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> PlantReport:
    """Copy shards with known misalignment.

    Samples with fewer than two modalities, or unreadable JSON, are copied unchanged.

    Args:
        spec: Shards, as ``data.shards``.
        out: Folder or ``s3://`` prefix of the copy.
        fraction: Share of all samples to plant.
        fields: Modality to where it lies, as ``data.fields``.
        modality: Which one is exchanged; drawn for each sample by default.
        label: Field in which the donor must differ.
        seed: Another seed, another choice.
        storage: Where everything lies.
        advance: Called after each shard with steps done and steps in all (two per shard).

    Raises:
        ConfigError: The fraction, the modality or the fields make no sense, or ``out`` is where
            the shards are.
        ShardError: Shards that are not found or cannot be read by anyone, or cannot be copied
            under their keys.
        StorageError: The copy cannot be written.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction}; it must be above 0 and at most 1")
    if len(fields) < 2:
        raise ConfigError("fields: planting exchanges one of at least two modalities; name two")
    if modality is not None and modality not in fields:
        raise ConfigError(f"modality '{modality}' is not in fields: {', '.join(sorted(fields))}")
    storage = storage or Storage()
    found = find_shards(spec, storage)
    urls = copies(found.shards, out, storage)
    report = PlantReport(storage.join(out, TRUTH), missing=found.missing)
    planter = _Planter(found.shards, storage, Fields(fields).alternatives, modality, label, seed)
    steps = 2 * len(urls)
    for step, _ in enumerate(planter.survey(), 1):
        _tell(advance, step, steps)
    planter.settle(fraction, report)
    storage.remove(report.truth)
    with storage.create(report.truth) as stream, pq.ParquetWriter(stream, SCHEMA) as truth:
        for number, url in enumerate(urls):
            name = url.removeprefix(storage.join(out, ""))
            rows = planter.copy(number, url, name, report)
            if rows.num_rows:
                truth.write_table(rows)
                report.shards.append(url)
            _tell(advance, len(urls) + number + 1, steps)
    return report


@dataclass(frozen=True)
class _Donation:
    """The members of a planted sample, and where they come from."""

    modality: str
    donor: Item
    members: Mapping[str, bytes]


class _Planter:
    def __init__(
        self,
        shards: Sequence[FileInfo],
        storage: Storage,
        alternatives: Alternatives,
        modality: str | None,
        label: str | None,
        seed: int,
    ) -> None:
        self._shards, self._storage = shards, storage
        self._alternatives, self._modality, self._label = alternatives, modality, label
        self._seed = seed
        self._samples = 0
        self._ranks: list[NDArray[np.float64]] = []
        self._labels: dict[str, set[str]] = {name: set() for name in alternatives}
        self._cutoff, self._ties = -1.0, 0

    def survey(self) -> Iterator[None]:
        """First pass: how many samples, their hash values, and whether labels differ at all."""
        for shard in self._shards:
            keys = []
            for item in self._items(shard.url, []):
                self._samples += 1
                for name in item.values:
                    # Two suffice to know that donors of another label exist.
                    if item.label is not None and len(self._labels[name]) < 2:
                        self._labels[name].add(item.label)
                if self._exchanged(item) is not None:
                    keys.append(item.sample.key)
            self._ranks.append(uniform(self._seed, "plant", keys))
            yield

    def settle(self, fraction: float, report: PlantReport) -> None:
        """Find the hash value up to which samples are planted."""
        ranks = np.sort(np.concatenate(self._ranks))
        if not len(ranks):
            wanted = f"'{self._modality}' and another" if self._modality else "two"
            raise ConfigError(f"fields: no sample has {wanted} of {', '.join(self._alternatives)}")
        if self._label is not None and not any(self._labels.values()):
            raise ConfigError(f"label: no sample has '{self._label}'; name another field, or none")
        report.samples, report.wanted = self._samples, round(fraction * self._samples)
        count = min(report.wanted, len(ranks))
        if count:
            self._cutoff = float(ranks[count - 1])
            # A key that stands in two shards has one hash value.
            self._ties = count - int(np.searchsorted(ranks, self._cutoff))
        logger.info("planting %d of %d samples", count, self._samples)

    def copy(self, number: int, url: str, name: str, report: PlantReport) -> pa.Table:
        """Second pass over one shard: write its copy, unless nothing in it can be read.

        Args:
            name: What the truth calls the copy.

        Returns:
            Its rows of the truth.
        """
        items = list(self._items(self._shards[number].url, report.failures))
        if not items:
            return SCHEMA.empty_table()
        donations = self._donations(number, items)
        rows = []
        with create_shard(url, self._storage) as shard:
            for place, item in enumerate(items):
                got = donations.get(place)
                shard.write(item.sample.key, item.sample.members if got is None else got.members)
                rows.append(
                    {
                        "shard": name,
                        "key": item.sample.key,
                        "planted": got is not None,
                        "modality": got and got.modality,
                        "donor_key": got and got.donor.sample.key,
                        "label": item.label,
                        "donor_label": got and got.donor.label,
                    }
                )
        report.by_modality.update(got.modality for got in donations.values())
        report.planted += len(donations)
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _items(self, url: str, failures: list[Failure]) -> Iterator[Item]:
        for found in read_shard(url, self._storage):
            if isinstance(found, Sample):
                yield look(found, self._alternatives, self._label)
            else:
                failures.append(found)

    def _exchanged(self, item: Item) -> str | None:
        """Which modality of this sample would be exchanged, if it is chosen."""
        names = sorted(item.values)
        if len(names) < 2 or (self._modality is not None and self._modality not in names):
            return None
        if self._modality is not None:
            return self._modality
        draw = uniform(self._seed, "plant modality", [item.sample.key])[0]
        return names[int(draw * len(names))]

    def _donations(self, number: int, items: Sequence[Item]) -> dict[int, _Donation]:
        """Place in the shard to what is planted there; donors come from this shard if they can."""
        open_places = [place for place, item in enumerate(items) if self._is_chosen(item)]
        donations: dict[int, _Donation] = {}
        for pool in self._pools(number, items):
            for place in open_places:
                donation = self._donation(items[place], pool)
                if donation is not None:
                    donations[place] = donation
            open_places = [place for place in open_places if place not in donations]
            if not open_places:
                break
        return donations

    def _pools(self, number: int, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        yield items
        # Shards are often sorted by class: the neighbours would all give the same wrong label.
        count = len(self._shards)
        start = seed_of(self._seed, "plant shards", number) % count
        others = [n for n in ((start + i) % count for i in range(count)) if n != number]
        for other in others[:SEARCHED_SHARDS]:
            yield list(self._items(self._shards[other].url, []))

    def _is_chosen(self, item: Item) -> bool:
        if self._exchanged(item) is None:
            return False
        rank = float(uniform(self._seed, "plant", [item.sample.key])[0])
        if rank == self._cutoff and self._ties > 0:
            self._ties -= 1
            return True
        return rank < self._cutoff

    def _donation(self, item: Item, pool: Sequence[Item]) -> _Donation | None:
        name = self._exchanged(item)
        if name is None:
            return None
        donors = [other for other in pool if self._may_give(other, item, name)]
        if not donors:
            return None
        draw = uniform(self._seed, "plant donor", [item.sample.key])[0]
        donor = donors[int(draw * len(donors))]
        members = replaced(
            item.sample, item.values[name], donor.values[name], self._alternatives[name]
        )
        return _Donation(name, donor, members)

    def _may_give(self, donor: Item, item: Item, name: str) -> bool:
        value, own = donor.values.get(name), item.values[name]
        if value is None or value.in_json != own.in_json or value.content == own.content:
            return False
        if item.label is None or len(self._labels[name]) < 2:
            return True
        return donor.label not in {None, item.label}


def _tell(advance: Callable[[int, int], None] | None, step: int, steps: int) -> None:
    if advance is not None:
        advance(step, steps)
