"""Whether a list of samples and some shards have anything in common, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multimem_ray.design.key_list import KeyList
from multimem_ray.design.shard_names import located, tail
from multimem_ray.errors import ConfigError
from multimem_ray.shards.reader import read_shard, split_name
from multimem_ray.storage import FileInfo, Storage

_EXAMPLES = 3


def require_met(listed: KeyList, shards: Iterable[FileInfo], storage: Storage, where: str) -> None:
    """Raise ConfigError unless a sample of these shards is in the list.

    Shards are read up to the first that is: a list that fits costs a few samples, one that does
    not a pass over the shards.

    Args:
        where: What names the list, for the error.
    """
    if not len(listed):
        return
    examples, whole_names = list[str](), False
    bare = {split[0] for key in listed.examples if (split := split_name(key)) is not None}
    for shard in shards:
        place = located(shard.url)
        for item in read_shard(shard.url, storage):
            if item.key is None:
                continue
            if listed.contains([item.key], place)[0]:
                return
            whole_names = whole_names or item.key in bare
            if len(examples) < _EXAMPLES:
                name = f"{tail(place, listed.parts)}: " if listed.by_shard else ""
                examples.append(f"{name}{item.key}")
    raise ConfigError(_none_met(listed, examples, whole_names, where))


def _none_met(listed: KeyList, examples: Sequence[str], whole_names: bool, where: str) -> str:
    hint = (
        "these are file names; a key is the name up to the first dot, without it"
        if whole_names
        else "write keys as they stand in the shards"
    )
    return (
        f"{where}: none of its {len(listed)} samples stands in these shards. It has "
        f"{', '.join(map(repr, listed.examples))}, the shards have "
        f"{', '.join(map(repr, examples)) or 'no readable sample'}: {hint}"
    )
