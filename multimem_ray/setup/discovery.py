"""What there is to audit: shards, fields and label, from a look into a few shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from multimem_ray.config import (
    DEFAULT_LIMITS,
    Config,
    DataConfig,
    DesignConfig,
    LimitsConfig,
    digest,
)
from multimem_ray.design.shard_names import parts_needed
from multimem_ray.errors import ConfigError, SampleError
from multimem_ray.modalities import registry
from multimem_ray.modalities.fields import Fields, find_fields
from multimem_ray.run import Run, Shards, pool_places
from multimem_ray.sample import Failure, Sample
from multimem_ray.setup.grouping import (
    open_groups,
    require_grouping,
    settled_grouping,
    settled_models,
)
from multimem_ray.setup.lists import require_lists
from multimem_ray.setup.paths import absolute, absolute_url
from multimem_ray.setup.provenance import weights_digest
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo, Storage

_LABELS = ("json.class_label", "json.label", "json.class", "cls")
_MOST_NAMED = 5
_PROBED_SHARDS, _PROBED_SAMPLES = 8, 64
_PROBED_BYTES = 64 << 20  # of each shard; all of them are held together


def inspect(config: Config) -> tuple[Run, Shards]:
    """What :func:`open_run` does, without writing anything."""
    storage = Storage(config.storage)
    registry.load_plugins(config.data.plugins)
    config = settled_models(settled_grouping(absolute(config, storage), storage), storage)
    if config.data.embeddings is not None:
        from multimem_ray.embeddings.open import inspect_stored

        return inspect_stored(config, lambda url: absolute_url(url, storage))
    shards = _find(config.data.shards, config.held_out.shards, storage)
    scored, held_out = shards.scored, shards.held_out
    probe = list(_probe(scored, storage, config.data.limits))
    if not probe:
        raise ConfigError(
            "data.shards: no readable sample in the first shards: "
            f"{_first_reason(scored[0], storage)}"
            if scored
            else "data.shards: all shards are held out; name others in held_out.shards"
        )
    if config.data.fields:
        fields = dict(config.data.fields)
        Fields(fields).check(probe)
    else:
        fields = find_fields(probe)
    fields = _embedded(config.model.modalities, fields, named=bool(config.data.fields))
    config = config.model_copy(update={"modalities": _settled(config.modalities)})
    label = config.data.label or _find_label(probe)
    if config.scoring.partition_by == "label" and label is None:
        raise ConfigError("scoring.partition_by = label, and there is no label; set data.label")
    urls = sorted(shard.url for shard in (*scored, *held_out))
    held_out_urls = frozenset(s.url for s in held_out)
    below = _pool_below(config.design, [shard.url for shard in scored])
    weights = weights_digest(config, storage)
    require_grouping(config, fields, storage)
    table = open_groups(config, shards, storage)
    groups = "" if table is None else table.digest()
    parts = parts_needed(urls)
    run = Run(config, fields, label, held_out_urls, digest(urls), below, weights, groups, parts)
    unknown = set(config.modalities) - set(registry.names())
    if unknown:
        raise ConfigError(
            f"modalities.{min(unknown)}: no such modality; known: {', '.join(registry.names())}"
        )
    silent = sorted(set(config.training.noise) - set(fields))
    if silent:
        raise ConfigError(
            f"training.noise.{silent[0]}: no modality of this run; it has {', '.join(fields)}"
        )
    _ = run.decoder, run.design  # settings are checked before anything is started
    warnings = (_unread(run, probe), *require_lists(run, shards, table))
    return run, replace(shards, warnings=tuple(filter(None, warnings)))


def _unread(run: Run, probe: Sequence[Sample]) -> str:
    """What to say of members that no field names, but for metadata; empty if there are none."""
    read = {part for parts in run.decoder.fields.alternatives.values() for part in parts}
    read |= {"json", "cls", str(run.label), str(run.config.design.group)}
    counts = Counter(extension for sample in probe for extension in sample.extensions)
    rest = (item for item in counts.items() if item[0].removesuffix(".gz") not in read)
    unread = sorted(rest, key=lambda item: (-item[1], item[0]))
    if not unread:
        return ""
    named = ", ".join(f"{name} ({count})" for name, count in unread[:_MOST_NAMED])
    more = f" and {len(unread) - _MOST_NAMED} more kinds" if len(unread) > _MOST_NAMED else ""
    return (
        f"members that nothing reads, in {len(probe)} samples: {named}{more}; a key ends at the "
        "first dot; data.fields says what is read, multimem inspect what is there"
    )


def _settled(modalities: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The modalities' settings as this machine settles them."""
    known = set(registry.names())
    return {
        name: registry.get(name).settled(settings) if name in known else settings
        for name, settings in modalities.items()
    }


def _embedded(
    embedded: Sequence[str] | None, fields: Mapping[str, str], *, named: bool
) -> dict[str, str]:
    """The fields of the modalities that the model embeds; all of them if it does not say.

    Args:
        named: Whether the fields are the user's.
    """
    if not embedded:
        return dict(fields)
    absent = [name for name in embedded if name not in fields]
    if absent:
        source = "data.fields names" if named else "the shards hold"
        raise ConfigError(
            f"model.modalities: the model embeds {', '.join(sorted(embedded))}, and {source} "
            f"{', '.join(sorted(fields))}, without {', '.join(absent)}; say where it lies in "
            f"data.fields.{absent[0]}, choose another model, or set model.modalities"
        )
    return {name: fields[name] for name in sorted(embedded)}


def _pool_below(design: DesignConfig, urls: Sequence[str]) -> float:
    """The hash up to which shards belong to the pool; 1 if all do."""
    pool = design.pool_shards
    if pool is None or pool >= len(urls):
        return 1.0
    return float(np.sort(pool_places(design.seed, urls))[pool - 1])


def _find(data: str | list[str], apart: str | list[str] | None, storage: Storage) -> Shards:
    """The shards that ``data.shards`` and ``held_out.shards`` name, under absolute URLs."""

    def absolute(found: Iterable[FileInfo]) -> tuple[FileInfo, ...]:
        return tuple(replace(shard, url=absolute_url(shard.url, storage)) for shard in found)

    named = find_shards(data, storage)
    missing = [absolute_url(url, storage) for url in named.missing]
    held_out: tuple[FileInfo, ...] = ()
    if apart is not None:
        extra = find_shards(apart, storage)
        held_out = absolute(extra.shards)
        missing += [absolute_url(url, storage) for url in extra.missing]
    urls = {shard.url for shard in held_out}
    scored = tuple(shard for shard in absolute(named.shards) if shard.url not in urls)
    return Shards(scored, held_out, tuple(missing))


def require_shards(data: DataConfig, what: str) -> None:
    """Raise ConfigError where stored embeddings leave nothing to train, embed or decode."""
    if data.embeddings is not None:
        raise ConfigError(
            f"data.embeddings: there is nothing to {what} without shards; stored embeddings are "
            "scored by `multimem audit` or `multimem score`"
        )


def detect_fields(spec: str | list[str], storage: Storage) -> tuple[dict[str, str], str | None]:
    """Fields and label found in the first samples of some shards.

    Raises:
        ShardNotFoundError: No shard at all.
        ConfigError: Fewer than two modalities are there.
    """
    probe = list(_probe(tuple(find_shards(spec, storage).shards), storage))
    return find_fields(probe), _find_label(probe)


def _first_reason(shard: FileInfo, storage: Storage) -> str:
    """Why the reader finds nothing in a shard, in its own words."""
    failures = (item for item in read_shard(shard.url, storage) if isinstance(item, Failure))
    failure = next(failures, None)
    return f"{shard.url}: {failure.detail if failure else 'there is none'}"


def _probe(
    shards: tuple[FileInfo, ...], storage: Storage, limits: LimitsConfig = DEFAULT_LIMITS
) -> Iterator[Sample]:
    """A few samples from shards spread over the list."""
    step = max(1, len(shards) // _PROBED_SHARDS)
    for shard in shards[::step][:_PROBED_SHARDS]:
        items = read_shard(shard.url, storage, limits=limits)
        found = (item for item in items if isinstance(item, Sample))
        left = _PROBED_BYTES
        for sample in islice(found, _PROBED_SAMPLES):
            yield sample
            left -= sample.size
            if left < 0:
                break


def _find_label(probe: list[Sample]) -> str | None:
    for field in _LABELS:
        for sample in probe:
            try:
                if sample.field(field) is not None:
                    return field
            except SampleError:
                continue
    return None
