"""A run: the configuration together with what was found in the shards.

Everything a worker needs is in a small picklable :class:`Run`, whatever the number of shards. It is
made from a configuration by :mod:`multimem_ray.setup`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.config import Config, ModelConfig, digest
from multimem_ray.design import Design, HeldOutRule, make_design
from multimem_ray.design.given import UnseenHeldOut
from multimem_ray.design.group_table import GroupTable, is_table, read_groups
from multimem_ray.design.hashing import uniform
from multimem_ray.design.membership import BoolMatrix
from multimem_ray.design.shard_names import tail
from multimem_ray.errors import DesignError, SampleError, StorageError
from multimem_ray.fence import Fence
from multimem_ray.modalities import registry
from multimem_ray.modalities.content import content_name
from multimem_ray.modalities.decoder import VIEWS_VERSION, Decoder
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.own_files import damaged, parsed
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.storage import FileInfo, Storage

FORMAT = 2
"""What ``run.json`` says of the run's folder: it grows when an older version would misread a file.

A version reads the formats up to its own (outputs of 0.1 name none and are format 1), and refuses
later ones. In 2, names hold the number of an epoch (:mod:`multimem_ray.fence`).
"""


_NO_RUN = "restore it from a copy, or begin in another output folder"


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
        groups: Digest of the table of groups that it was given; empty if it was given none.
        shard_parts: Parts of a shard's path that tell it from the others of the run: with its key
            and index, what a sample is known by.
        epoch: Which opening of the output this is; see :mod:`multimem_ray.fence`.
        views: Version of the way in which views are made.
    """

    config: Config
    fields: Mapping[str, str]
    label: str | None
    held_out_urls: frozenset[str] = frozenset()
    shard_set: str = ""
    pool_below: float = 1.0
    weights: str = ""
    groups: str = ""
    shard_parts: int = 1
    epoch: int = 1
    views: int = VIEWS_VERSION

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Run:
        """The run that ``run.json`` tells of; its held-out shards are not listed there."""
        config = recorded_config(content)
        own = {"shard_set": "", "pool_below": 1.0, "weights": "", "groups": "", "shard_parts": 1}
        # A run that tells of no version is older than the second.
        own["views"] = 1
        known = {name: content.get(name, default) for name, default in own.items()}
        fields, label = content.get("fields"), content.get("label")
        if not isinstance(fields, dict) or not all(isinstance(f, str) for f in fields.values()):
            raise damaged(
                f"{config.output}/run.json", "'fields' are not what a run writes", _NO_RUN
            )
        return cls(config, fields, label, **known)

    def __getstate__(self) -> dict[str, Any]:
        # Without what was computed from them, which is cheaper to compute again than to send.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def storage(self) -> Storage:
        return Storage(self.config.storage)

    @property
    def fence(self) -> Fence:
        """What says whether this is still the one that writes."""
        return Fence(self.storage, self.output, self.epoch)

    def read(self, shard: str) -> Iterator[Sample | Failure]:
        """What :func:`read_shard` makes of a shard within ``data.limits``."""
        return read_shard(shard, self.storage, limits=self.config.data.limits)

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

    def shard_name(self, url: str) -> str:
        """What a shard is called in this run, wherever it lies."""
        return tail(url, self.shard_parts)

    @property
    def output(self) -> str:
        return self.config.output

    def path(self, *parts: str) -> str:
        """A path or URL below the output."""
        return self.storage.join(self.output, *parts)

    def group(self, sample: Sample) -> str:
        """What membership and the held-out set are decided by; see ``design.group``.

        A sample without the group field, or with an empty one or NaN in it, belongs with nothing
        but itself, one that a table does not name with its exact copies.

        Raises:
            SampleError: Its JSON is needed for that and cannot be read.
        """
        group = self.config.design.group
        if group is None:
            return sample.key
        if self.config.design.groups_by_field:
            value = sample.field(group)
            return sample.key if value is None else self._group_name(value) or sample.key
        listed = None
        if self.group_table is not None:
            listed = self.group_table.group(sample.key, sample.shard)
        return listed or content_name(sample, self.decoder.fields) or sample.key

    @cached_property
    def group_table(self) -> GroupTable | None:
        """The table that ``design.group`` names, if it names one."""
        group = self.config.design.group
        if group is None or not is_table(group):
            return None
        table = read_groups(group, self.storage, self.shard_parts)
        if self.groups and table.digest() != self.groups:
            raise DesignError(f"{group} has changed since the run was opened; run it again")
        return table

    def label_of(self, sample: Sample) -> str | None:
        value = sample.field(self.label) if self.label else None
        return None if value is None else self._as_text(value, str(self.label))

    def _group_name(self, value: Any) -> str:
        """A group as text; empty for what names none: NaN, blanks, an empty list."""
        if value in ([], {}) or (isinstance(value, float) and math.isnan(value)):
            return ""
        name = self._as_text(value, str(self.config.design.group))
        return name if name.strip() else ""

    def _as_text(self, value: Any, field: str) -> str:
        """A value that every row of the sample holds: as text, and within a limit."""
        text = value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value)
        limit = self.config.data.limits.name_bytes
        if 4 * len(text) > limit and len(text.encode("utf-8", "replace")) > limit:
            reason = f"{field} is longer than the limit data.limits.name_bytes = {limit}"
            raise SampleError(reason, "too_large", "select")
        return text

    def partition_of_sample(self, sample: Sample) -> str | None:
        """The value of ``scoring.partition_by`` where that is a field of the sample's json."""
        field = self.config.scoring.partition_by
        if field is None or not field.startswith("json."):
            return None
        try:
            value = sample.field(field)
            return None if value is None else self._as_text(value, field)
        except SampleError:
            # Where a row is written must not decide whether the sample is scored.
            return None

    @property
    def is_stored(self) -> bool:
        """Whether stored embeddings take the place of shards and models."""
        return self.config.data.embeddings is not None

    def model_config(self, model_id: str) -> ModelConfig:
        """How a model is built: post-training mitigation starts each from its own weights."""
        model, mitigation = self.config.model, self.config.mitigation
        if mitigation.kind != "post_training" or mitigation.references is None:
            return model
        start = self.storage.join(mitigation.references, "models", model_id)
        return model.model_copy(update={"init": start})

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
        return bool(pool_places(self.config.design.seed, [shard])[0] <= self.pool_below)

    def sides(self, groups: Sequence[str], shard: str) -> tuple[BoolMatrix, BoolMatrix, BoolMatrix]:
        """(members, f, g), each (N, M): who trained on samples of one shard, and what is compared.

        See :meth:`Design.members` and :meth:`Design.contrast_of`; no reference model trained on a
        shard outside the pool.
        """
        design = self.design
        members = design.members(groups) if self.trains_on(shard) else design.outside_pool(groups)
        return members, *design.contrast_of(groups, members)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with whatever could change a score; see :meth:`Config.fingerprint`."""
        return digest([self.config.score_relevant(), *self._given()])

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
        return digest([kept, *self._given()])

    def _given(self) -> list[Any]:
        given: list[Any] = [dict(self.fields), self.shard_set, self.weights]
        if self.groups:
            given.append(self.groups)
        # Stored embeddings were made of whatever views; the first version had no number.
        if self.views > 1 and not self.is_stored:
            given.append({"views": self.views})
        return given

    def model_folder(self, model_id: str) -> ModelFolder:
        url, fingerprint = self.path("models", model_id), self.training_fingerprint
        return ModelFolder(self.storage, url, fingerprint, self.fence)


@dataclass(frozen=True)
class Shards:
    """The shards of a run.

    Args:
        scored: Those whose samples are trained on and scored.
        held_out: Those that are the held-out set, when H is given as shards.
        missing: Named, but not there.
        warnings: What was seen while they were looked at that a person should know.
    """

    scored: tuple[FileInfo, ...]
    held_out: tuple[FileInfo, ...]
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def recorded_config(content: Mapping[str, Any]) -> Config:
    """The configuration in a ``run.json``, also in one that knew no other group than the key."""
    config = content["config"]
    try:
        return Config.model_validate({**config, "design": {"group": None, **config["design"]}})
    except (ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        reason = f"the configuration in run.json is damaged or of another version ({said})"
        raise StorageError(f"{config.get('output')}: {reason}; {_NO_RUN}") from error


def load_run(output: str, storage: Storage) -> dict[str, Any]:
    """``run.json`` of an output folder.

    Raises:
        StorageError: There is no run, one of a later version of the tool, or a damaged file.
    """
    url = storage.join(output, "run.json")
    if not storage.exists(url):
        raise StorageError(f"{url}: no run there; start one with `multimem audit`")
    content = run_document(storage.read_bytes(url), url)
    require_format(content, url)
    return content


def run_document(data: bytes, url: str) -> dict[str, Any]:
    """The content of a ``run.json``.

    Raises:
        StorageError: It is damaged.
    """
    content = parsed(data, url, _NO_RUN, config=dict)
    if not isinstance(content.get("format", 1), int):
        raise damaged(url, "not what a run writes", _NO_RUN)
    return content


def require_format(content: Mapping[str, Any], url: str) -> None:
    """Raise StorageError if a later version of the tool wrote the run's folder.

    Args:
        content: Of its ``run.json``.
    """
    if content.get("format", 1) > FORMAT:
        versions = content.get("versions")
        known = versions if isinstance(versions, dict) else {}
        version = known.get("multimem-ray", "a later version")
        raise StorageError(
            f"{url}: format {content['format']}, written by multimem_ray {version}; this version "
            f"reads formats up to {FORMAT}: upgrade it, or use another output folder"
        )


def pool_places(seed: int, urls: Sequence[str]) -> NDArray[np.float64]:
    """(N,) the hash of each shard that decides whether models may train on it."""
    return uniform(seed, "pool_shards", urls)
