"""What samples are grouped by and how many models there are, settled before anything is trained.

The default is the content, so that exact copies are left out together. An output that was begun
by key goes on by key, and models that bring their memberships with them bring what these were
drawn by: a rule that is asked about other groups would tell nonsense.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from multimem_ray.config import CONTENT, Config
from multimem_ray.design.given import recorded_membership
from multimem_ray.design.group_table import GroupTable, is_table, read_groups
from multimem_ray.design.shard_names import parts_needed, tail
from multimem_ray.embeddings import layout
from multimem_ray.errors import ConfigError, DesignError
from multimem_ray.run import Shards, recorded_config, run_document
from multimem_ray.storage import Storage

_UNLISTED = ("all", "none", "recorded")


def settled_grouping(config: Config, storage: Storage) -> Config:
    """The configuration with ``design.group`` as it is in force.

    What the user wrote stays; see :func:`require_grouping`.
    """
    design = config.design
    if "group" in design.model_fields_set or design.group != CONTENT:
        return config
    group = _implied(config, storage)
    return config.model_copy(update={"design": design.model_copy(update={"group": group})})


def _implied(config: Config, storage: Storage) -> str | None:
    begun = _begun(config.output, storage)
    if begun is not None and begun.design.group is None:
        return None
    stored = config.data.embeddings is not None
    if any(model.members not in _UNLISTED for model in _models(config)):
        return None  # files of keys, as they always were
    with contextlib.suppress(DesignError):  # whoever asks for the members says what is wrong
        for _, recorded in _recorded(config, storage):
            group = _group_of(recorded)
            # Of stored embeddings the contents are gone; the groups stand beside them.
            return layout.GROUP if stored and group is not None else group
    if stored:
        return None
    references = config.mitigation.references
    if config.mitigation.kind != "none" and references is not None:
        known = _begun(references, storage)
        if known is not None:
            return known.design.group
    return CONTENT


def settled_models(config: Config, storage: Storage) -> Config:
    """The configuration with as many models as its output was given so far, of ``models: auto``."""
    design = config.design
    begun = _begun(config.output, storage) if design.grows else None
    if begun is None or begun.design.kind != design.kind or begun.design.models <= design.models:
        return config
    grown = design.model_copy(update={"models": begun.design.models})
    return config.model_copy(update={"design": grown})


def require_grouping(config: Config, fields: Mapping[str, str], storage: Storage) -> None:
    """Raise DesignError where models recorded memberships that were drawn by something else."""
    group = config.design.group
    for checkpoint, recorded in _recorded(config, storage):
        theirs = _group_of(recorded)
        if is_table(theirs) and is_table(group):
            continue  # a table may have been moved; its content is what counts
        if theirs != group:
            raise DesignError(
                f"{checkpoint} trained on samples grouped by {theirs or 'key'}, and design.group "
                f"is {group or 'key'}: set design.group to {theirs or 'key'}, or its members to a "
                "file of keys"
            )
        known = recorded.get("fields")
        if group == CONTENT and known is not None and dict(known) != dict(fields):
            raise DesignError(
                f"{checkpoint} trained on samples grouped by the content of {_told(known)}, and "
                f"here it is that of {_told(fields)}: set data.fields to the former"
            )


def open_groups(config: Config, shards: Shards, storage: Storage) -> GroupTable | None:
    """The table that ``design.group`` names, if it names one.

    Raises:
        ConfigError: It is no table of groups, or names no sample of these shards.
    """
    group = config.design.group
    if group is None or not is_table(group):
        return None
    places = [shard.url for shard in (*shards.scored, *shards.held_out)]
    table = read_groups(group, storage, parts_needed(places))
    names = {tail(place, table.parts) for place in places}
    if table.by_shard and not names & set(table.shards):
        raise ConfigError(
            f"design.group: {group} names samples of {len(table.shards)} shards, such as "
            f"{min(table.shards, default='none')}, and none of them is in data.shards"
        )
    return table


def _models(config: Config) -> list[Any]:
    return [*config.design.given, *([config.design.target] if config.design.target else [])]


def _recorded(config: Config, storage: Storage) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for model in _models(config):
        if model.members == "recorded":
            content = recorded_membership(model.checkpoint, storage)
            yield model.checkpoint, {**content["design"], "fields": content.get("fields")}


def _begun(output: str, storage: Storage) -> Config | None:
    """The configuration that an output was begun with; None where there is no run."""
    url = storage.join(output, "run.json")
    if not storage.exists(url):
        return None
    return recorded_config(run_document(storage.read_bytes(url), url))


def _group_of(design: Mapping[str, Any]) -> str | None:
    """What an output from before there was a choice tells by telling nothing: the key."""
    group = design.get("group")
    return None if group is None else str(group)


def _told(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({fields[name]})" for name in sorted(fields))
