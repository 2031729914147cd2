"""A run: the configuration together with what was found in the shards.

``open_run`` looks into a few shards, settles which modalities and label there are, and writes
``run.json``; from then on everything a worker needs is in a small picklable :class:`Run`, whatever
the number of shards. An output folder belongs to one configuration: another one is refused with
the difference shown.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import Config, GivenModel, difference, digest
from multimem_ray.design import Design, HeldOutRule, make_design
from multimem_ray.design.given import UnseenHeldOut
from multimem_ray.design.hashing import uniform
from multimem_ray.design.membership import BoolMatrix
from multimem_ray.errors import ConfigError, ResumeError, SampleError, StorageError
from multimem_ray.modalities import registry
from multimem_ray.modalities.decoder import Decoder
from multimem_ray.modalities.fields import Fields, find_fields
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.models.provenance import weights_digest
from multimem_ray.sample import Sample
from multimem_ray.shards.find import find_shards
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo, Storage

logger = logging.getLogger(__name__)

_LABELS = ("json.class_label", "json.label", "json.class", "cls")
_PROBED_SHARDS, _PROBED_SAMPLES = 8, 64


@dataclass(frozen=True)
class Run:
    """One audit, as the workers see it.

    Args:
        config: The resolved configuration.
        fields: Modality to where it lies in a sample.
        label: Field with the class label, or None.
        held_out_urls: Shards of which every sample is held out; empty when H is a fraction.
        shard_set: Digest of the URLs of all shards: what the reference models were trained on
            is part of what they are.
        pool_below: Models train on the shards whose hash is not above this; see
            ``design.pool_shards``.
        weights: Digest of the weights that the run was given; empty if it was given none.
    """

    config: Config
    fields: Mapping[str, str]
    label: str | None
    held_out_urls: frozenset[str] = frozenset()
    shard_set: str = ""
    pool_below: float = 1.0
    weights: str = ""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Run:
        """The run that ``run.json`` tells of; its held-out shards are not listed there."""
        config = Config.model_validate(content["config"])
        known = {name: content[name] for name in ("shard_set", "pool_below", "weights")}
        return cls(config, content["fields"], content["label"], **known)

    def __getstate__(self) -> dict[str, Any]:
        # Without what was computed from them, which is cheaper to compute again than to send.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def storage(self) -> Storage:
        return Storage(self.config.storage)

    @cached_property
    def decoder(self) -> Decoder:
        registry.load_plugins(self.config.data.plugins)
        return Decoder(self.fields, self.config.modalities)

    @cached_property
    def design(self) -> Design:
        return make_design(self.config.design, self.storage)

    @cached_property
    def held_out_rule(self) -> HeldOutRule:
        if self.design.checkpoints():
            return UnseenHeldOut(self.config.held_out, self.design, sorted(self.held_out_urls))
        return HeldOutRule(
            self.config.held_out, seed=self.config.design.seed, shards=self.held_out_urls
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, sorted: the order of every axis over modalities."""
        return tuple(sorted(self.fields))

    @property
    def output(self) -> str:
        return self.config.output

    def path(self, *parts: str) -> str:
        """A path or URL below the output."""
        return self.storage.join(self.output, *parts)

    def group(self, sample: Sample) -> str:
        """What membership is decided by: the configured group, or the sample's own key.

        A sample without the group field belongs with nothing but itself.
        """
        field = self.config.design.group
        value = sample.field(field) if field else None
        return sample.key if value is None else _as_text(value)

    def label_of(self, sample: Sample) -> str | None:
        value = sample.field(self.label) if self.label else None
        return None if value is None else _as_text(value)

    @property
    def is_stored(self) -> bool:
        """Whether stored embeddings take the place of shards and models."""
        return self.config.data.embeddings is not None

    def is_trained(self, model_id: str) -> bool:
        """Whether a model is finished, here or elsewhere."""
        return (
            self.is_stored
            or model_id in self.design.checkpoints()
            or self.model_folder(model_id).is_done()
        )

    def trains_on(self, shard: str) -> bool:
        """Whether samples of this shard may be trained on at all, as ``design.pool_shards`` has it.

        Args:
            shard: Its URL, absolute.
        """
        if self.pool_below >= 1.0:
            return True
        return bool(_pool_places(self.config, [shard])[0] <= self.pool_below)

    def sides(self, groups: Sequence[str], shard: str) -> tuple[BoolMatrix, BoolMatrix, BoolMatrix]:
        """(members, f, g), each (N, M): who trained on samples of one shard, and what is compared.

        See :meth:`Design.members` and :meth:`Design.contrast_of`; no reference model trained on a
        shard outside the pool.
        """
        design = self.design
        members = design.members(groups) if self.trains_on(shard) else design.outside(groups)
        return members, *design.contrast_of(groups, members)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever could change a score; see :meth:`Config.fingerprint`."""
        return digest(
            [self.config.score_relevant(), dict(self.fields), self.shard_set, self.weights]
        )

    @cached_property
    def training_fingerprint(self) -> str:
        """Changes with whatever could change a reference model.

        The number of models does not enter where adding models leaves the others as they are.
        """
        kept = self.config.score_relevant()
        del kept["scoring"], kept["held_out"]["max_samples"], kept["held_out"]["balance"]
        del kept["data"]["label"]
        if self.config.design.kind != "leave_subset_out":
            del kept["design"]["models"]
        return digest([kept, dict(self.fields), self.shard_set, self.weights])

    def model_folder(self, model_id: str) -> ModelFolder:
        return ModelFolder(self.storage, self.path("models", model_id), self.training_fingerprint)


@dataclass(frozen=True)
class Shards:
    """The shards of a run.

    Args:
        scored: Those whose samples are trained on and scored.
        held_out: Those that are the held-out set, when H is given as shards.
        missing: Named, but not there.
    """

    scored: tuple[FileInfo, ...]
    held_out: tuple[FileInfo, ...]
    missing: tuple[str, ...]


def shard_id(url: str) -> str:
    """A file name for what comes from a shard: readable, and unique by a hash of the URL."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", url.rstrip("/").rsplit("/", 1)[-1])
    stem = stem.removesuffix(".tar")[:80]
    return f"{stem}-{hashlib.blake2b(url.encode(), digest_size=6).hexdigest()}"


def partition_of(url: str, partitions: int) -> str:
    """The hive partition that a shard's files lie in, such as ``partition=007``."""
    number = int.from_bytes(hashlib.blake2b(url.encode(), digest_size=8).digest()) % partitions
    return f"partition={number:03d}"


def open_run(config: Config) -> tuple[Run, Shards]:
    """Find the shards, settle fields and label, and claim the output folder.

    Raises:
        ShardNotFoundError: No shard at all.
        ConfigError: A configured modality is in no sample, or fewer than two were found.
        ResumeError: The output belongs to another configuration.
    """
    run, shards = inspect(config)
    _claim(run, shards)
    if run.is_stored:
        from multimem_ray.embeddings.open import store_units

        store_units(run, shards)
    return run, shards


def inspect(config: Config) -> tuple[Run, Shards]:
    """What :func:`open_run` does, without writing anything."""
    storage = Storage(config.storage)
    registry.load_plugins(config.data.plugins)
    config = _absolute(config, storage)
    if config.data.embeddings is not None:
        from multimem_ray.embeddings.open import inspect_stored

        return inspect_stored(config, lambda url: _absolute_url(url, storage))
    shards = _find(config, storage)
    scored, held_out = shards.scored, shards.held_out
    probe = list(_probe(scored, storage))
    if not probe:
        raise ConfigError(
            f"data.shards: no readable sample in the first shards (from {scored[0].url}); "
            "check that they are WebDataset tar files"
            if scored
            else "data.shards: all shards are held out; name others in held_out.shards"
        )
    if config.data.fields:
        fields = dict(config.data.fields)
        Fields(fields).check(probe)
    else:
        fields = find_fields(probe)
    fields = _embedded(config, fields)
    config = _settled(config)
    label = config.data.label or _find_label(probe)
    urls = sorted(shard.url for shard in (*scored, *held_out))
    held_out_urls = frozenset(s.url for s in held_out)
    below = _pool_below(config, [shard.url for shard in scored])
    weights = weights_digest(config, storage)
    run = Run(config, fields, label, held_out_urls, digest(urls), below, weights)
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
    return run, shards


def _settled(config: Config) -> Config:
    """The configuration with the modalities' settings as this machine settles them."""
    known = set(registry.names())
    settled = {
        name: registry.get(name).settled(settings) if name in known else settings
        for name, settings in config.modalities.items()
    }
    return config.model_copy(update={"modalities": settled})


def _embedded(config: Config, fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of the modalities that the model embeds; all of them if it does not say."""
    wanted = config.model.modalities
    if not wanted:
        return dict(fields)
    absent = [name for name in wanted if name not in fields]
    if absent:
        source = "data.fields names" if config.data.fields else "the shards hold"
        raise ConfigError(
            f"model.modalities: the model embeds {', '.join(sorted(wanted))}, and {source} "
            f"{', '.join(sorted(fields))}, without {', '.join(absent)}; say where it lies in "
            f"data.fields.{absent[0]}, choose another model, or set model.modalities"
        )
    return {name: fields[name] for name in sorted(wanted)}


def _pool_below(config: Config, urls: Sequence[str]) -> float:
    """The hash up to which shards belong to the pool; 1 if all do."""
    wanted = config.design.pool_shards
    if wanted is None or wanted >= len(urls):
        return 1.0
    return float(np.sort(_pool_places(config, urls))[wanted - 1])


def _pool_places(config: Config, urls: Sequence[str]) -> NDArray[np.float64]:
    return uniform(config.design.seed, "pool_shards", urls)


def _absolute(config: Config, storage: Storage) -> Config:
    """The configuration with local folders made absolute: workers run in folders of their own."""
    cache = str(Path(config.resources.cache_dir).expanduser().absolute())
    resources = config.resources.model_copy(update={"cache_dir": cache})
    output = _absolute_url(config.output, storage)
    model = config.model.model_copy(
        update={
            "adapter": config.model.adapter and _absolute_adapter(config.model.adapter),
            "init": config.model.init and _absolute_url(config.model.init, storage),
        }
    )
    given = [_absolute_given(item, storage) for item in config.design.given]
    target = config.design.target and _absolute_target(config.design.target, storage)
    design = config.design.model_copy(update={"given": given, "target": target})
    return config.model_copy(
        update={"output": output, "resources": resources, "model": model, "design": design}
    )


def _absolute_target(target: GivenModel, storage: Storage) -> GivenModel:
    """A folder is taken with the architecture that is written down in it, not with the run's."""
    folder = _absolute_url(target.checkpoint, storage)
    if (Path(folder) / "config.json").exists():
        target = target.model_copy(update={"checkpoint": f"local:{folder}"})
    return _absolute_given(target, storage)


def _absolute_given(given: GivenModel, storage: Storage) -> GivenModel:
    members = given.members
    if members not in {"all", "none", "recorded"}:
        members = _absolute_url(members, storage)
    checkpoint = _absolute_checkpoint(given.checkpoint, storage)
    return given.model_copy(update={"checkpoint": checkpoint, "members": members})


def _absolute_checkpoint(checkpoint: str, storage: Storage) -> str:
    from multimem_ray.models.adapters import absolute_adapter, is_adapter

    if is_adapter(checkpoint):
        return absolute_adapter(checkpoint)
    return _absolute_url(checkpoint, storage)


def _absolute_adapter(name: str) -> str:
    # Adapters import torch, which takes the driver seconds; most runs have none.
    from multimem_ray.models.adapters import absolute_adapter

    return absolute_adapter(name)


def _absolute_url(url: str, storage: Storage) -> str:
    if storage.is_remote(url):
        return url
    return str(Path(url.removeprefix("file://")).expanduser().absolute())


def _find(config: Config, storage: Storage) -> Shards:
    def absolute(found: Iterable[FileInfo]) -> tuple[FileInfo, ...]:
        return tuple(replace(shard, url=_absolute_url(shard.url, storage)) for shard in found)

    found = find_shards(config.data.shards, storage)
    missing = [_absolute_url(url, storage) for url in found.missing]
    held_out: tuple[FileInfo, ...] = ()
    if config.held_out.shards is not None:
        extra = find_shards(config.held_out.shards, storage)
        held_out = absolute(extra.shards)
        missing += [_absolute_url(url, storage) for url in extra.missing]
    urls = {shard.url for shard in held_out}
    scored = tuple(shard for shard in absolute(found.shards) if shard.url not in urls)
    return Shards(scored, held_out, tuple(missing))


def require_shards(config: Config, what: str) -> None:
    """Raise ConfigError where stored embeddings leave nothing to train, embed or decode."""
    if config.data.embeddings is not None:
        raise ConfigError(
            f"data.embeddings: there is nothing to {what} without shards; stored embeddings are "
            "scored by `multimem audit` or `multimem score`"
        )


def look(spec: str | list[str], storage: Storage) -> tuple[dict[str, str], str | None]:
    """Fields and label found in the first samples of some shards.

    Raises:
        ShardNotFoundError: No shard at all.
        ConfigError: Fewer than two modalities are there.
    """
    probe = list(_probe(tuple(find_shards(spec, storage).shards), storage))
    return find_fields(probe), _find_label(probe)


def load_run(output: str, storage: Storage) -> dict[str, Any]:
    """``run.json`` of an output folder.

    Raises:
        StorageError: There is no run.
    """
    url = storage.join(output, "run.json")
    if not storage.exists(url):
        raise StorageError(f"{url}: no run there; start one with `multimem audit`")
    content: dict[str, Any] = json.loads(storage.read_bytes(url))
    return content


def _probe(shards: tuple[FileInfo, ...], storage: Storage) -> Iterator[Sample]:
    """A few samples from shards spread over the list."""
    step = max(1, len(shards) // _PROBED_SHARDS)
    for shard in shards[::step][:_PROBED_SHARDS]:
        found = (item for item in read_shard(shard.url, storage) if isinstance(item, Sample))
        yield from islice(found, _PROBED_SAMPLES)


def _find_label(probe: list[Sample]) -> str | None:
    for field in _LABELS:
        for sample in probe:
            try:
                if sample.field(field) is not None:
                    return field
            except SampleError:
                continue
    return None


def _claim(run: Run, shards: Shards) -> None:
    storage, url = run.storage, run.path("run.json")
    started = time.time()
    if storage.exists(url):
        old = json.loads(storage.read_bytes(url))
        if old["fingerprint"] != run.fingerprint and not _only_adds_models(run, old):
            raise ResumeError(_refusal(run, shards, old))
        started = old["started_at"]
    content = {
        "config": run.config.model_dump(mode="json"),
        "fingerprint": run.fingerprint,
        "fields": dict(run.fields),
        "shard_set": run.shard_set,
        "pool_below": run.pool_below,
        "weights": run.weights,
        "modalities": list(run.modalities),
        "label": run.label,
        "design": run.design.describe(),
        "shards": len(shards.scored),
        "held_out_shards": len(shards.held_out),
        "bytes": sum(shard.size for shard in shards.scored),
        "missing": list(shards.missing),
        "versions": _versions(),
        "started_at": started,
    }
    storage.write_atomic(url, json.dumps(content, indent=1).encode())


def _only_adds_models(run: Run, old: Mapping[str, Any]) -> bool:
    """Whether the run asks for more models and is otherwise the same: they are trained in addition.

    What was scored with fewer is scored again, since its markers carry the old fingerprint.
    """
    then = Run.from_json(old)
    grown = run.config.design.models > then.config.design.models
    stable = run.config.design.kind != "leave_subset_out"
    same = then.training_fingerprint == run.training_fingerprint
    return grown and stable and same


def _refusal(run: Run, shards: Shards, old: Mapping[str, Any]) -> str:
    before = Config.model_validate(old["config"]).score_relevant()
    lines = difference(before, run.config.score_relevant())
    if dict(old["fields"]) != dict(run.fields):
        lines += difference({"fields": old["fields"]}, {"fields": dict(run.fields)})
    if old["shard_set"] != run.shard_set:
        lines.append(
            f"the set of shards: {old['shards']} then, {len(shards.scored)} now; the reference "
            "models know only those they were trained on"
        )
    if old["weights"] != run.weights:
        lines.append("the weights that it was given: a checkpoint has other content now")
    changes = "\n  ".join(lines) or "the version of the tool"
    return (
        f"{run.output} holds a run with another configuration:\n  {changes}\n"
        "Use another output folder, or the old values to resume it."
    )


def _versions() -> dict[str, str]:
    names = ("multimem-ray", "ray", "torch", "torchvision", "torchaudio", "pyarrow", "webdataset")
    return {name: metadata.version(name) for name in names}


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value)
