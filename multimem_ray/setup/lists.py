"""Lists that a configuration names, compared with its shards before anything is paid for."""

from __future__ import annotations

from collections.abc import Iterator

from multimem_ray.design.group_table import GroupTable
from multimem_ray.design.key_list import KeyList, read_key_file, read_keys
from multimem_ray.run import Run, Shards
from multimem_ray.shards.met import Name, require_met

_UNLISTED = ("all", "none", "recorded")


def require_lists(run: Run, shards: Shards, table: GroupTable | None) -> Iterator[str]:
    """What to say of lists that have little to do with the shards.

    Args:
        table: What ``design.group`` names, where that is a table.

    Raises:
        ConfigError: A list has nothing to do with them, or cannot be read.
        DesignError: A file of keys of a given model cannot be read.
    """
    every = (*shards.scored, *shards.held_out)
    for where, listed, name in _lists(run, table):
        said = require_met(listed, every, run.storage, where, name)
        if said is not None:
            yield said


def _lists(run: Run, table: GroupTable | None) -> Iterator[tuple[str, KeyList, Name | None]]:
    """Each list with what names it, and by what it knows a sample."""
    config, storage = run.config, run.storage
    design, mitigation = config.design, config.mitigation
    if table is not None:
        yield f"design.group: {design.group}", table.listed, None
    given = [(f"design.given.{place}", model) for place, model in enumerate(design.given)]
    for field, model in [*given, *([("design.target", design.target)] if design.target else [])]:
        if model.members not in _UNLISTED:
            wrong = f"members '{model.members}' is none of all, none, recorded"
            listed = read_key_file(model.members, storage, wrong)
            by_group = None if design.group is None else run.group
            yield f"{field}.members: {model.members}", listed, by_group
    if mitigation.kind != "none" and mitigation.samples:
        listed = read_keys(mitigation.samples, storage, parts=run.shard_parts)
        yield f"mitigation.samples: {mitigation.samples}", listed, None
    if config.data.planted is not None:
        from multimem_ray.results.planted import listed_truth

        listed = listed_truth(config.data.planted, storage, run.shard_parts)
        yield f"data.planted: {config.data.planted}", listed, None
