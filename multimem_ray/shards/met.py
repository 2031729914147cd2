"""Whether a list of samples and some shards have anything in common, before anything is done.

How much is told by the overlap coefficient (Szymkiewicz and Simpson): what they have in common,
÷ the fewer of what is listed and what is in the shards. A list of much more than the shards hold
is well, and so is one of a few of their samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from multimem_ray.design.key_list import OF_SHARD, KeyList
from multimem_ray.design.shard_names import located, tail
from multimem_ray.errors import ConfigError, SampleError
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.reader import read_shard, split_name
from multimem_ray.storage import FileInfo, Storage

_EXAMPLES = 3
_LOOKED_SHARDS, _LOOKED_SAMPLES = 32, 1024
_LOOKED_BYTES = 64 << 20
FEW = 0.1
"""An overlap below this is told."""

Name = Callable[[Sample], str]
"""What a list knows a sample by, beside its shard: its key, or its group."""


@dataclass
class _Look:
    """Samples that were looked at."""

    samples: int = 0
    size: int = 0
    met: int = 0
    names: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)


def require_met(
    listed: KeyList,
    shards: Sequence[FileInfo],
    storage: Storage,
    where: str,
    name: Name | None = None,
) -> str | None:
    """What to say where few samples of these shards are in the list; None where they are not few.

    A few samples of some shards are looked at. If none of these is listed, shards are read up to
    the first that is: only a list that does not fit costs a pass over them.

    Args:
        where: What names the list, for the words.
        name: What the list knows a sample by; default: its key.

    Raises:
        ConfigError: No sample of these shards is in the list.
    """
    if not len(listed):
        return f"{where}: the list is empty"
    look, step = _Look(), max(1, len(shards) // _LOOKED_SHARDS)
    chosen = shards[::step][:_LOOKED_SHARDS]
    whole = len(chosen) == len(shards)
    for shard in chosen:
        most = look.samples + max(1, _LOOKED_SAMPLES // len(chosen))
        whole &= _look_into(shard, listed, storage, name, look, most)
    if not look.met and (whole or not _any_met(listed, shards, storage, name, look)):
        raise ConfigError(_none_met(listed, look, where))
    size = sum(shard.size for shard in shards)
    samples = look.samples if whole else max(1, look.samples) * max(1, size // max(1, look.size))
    # Where not all were looked at, as many as 95 % of such looks allow for (the rule of three).
    most_met = look.met if whole else (look.met + 3) / max(1, look.samples) * samples
    if most_met >= FEW * min(len(listed), samples):
        return None
    return (
        f"{where}: few of its {len(listed)} samples stand in these shards: "
        f"{look.met} of the {look.samples} that were looked at are in it. "
        f"{_both(listed, look)}: go on only if that is meant"
    )


def few_met(listed: KeyList, met: int, of: int) -> bool:
    """Whether so few of a list are among that many samples that it should be told."""
    return met < FEW * min(len(listed), of)


def _look_into(
    shard: FileInfo,
    listed: KeyList,
    storage: Storage,
    name: Name | None,
    look: _Look,
    most: int | None,
    *,
    until_met: bool = False,
) -> bool:
    """Look at samples of a shard until there are ``most``; whether that were all."""
    place, most_bytes = located(shard.url), look.size + _LOOKED_BYTES
    for item in read_shard(shard.url, storage):
        known = _name(item, name)
        if known is None:
            continue
        if most is not None and (look.samples >= most or look.size > most_bytes):
            return False
        look.samples += 1
        look.size += item.size if isinstance(item, Sample) else 0
        of = f"{tail(place, listed.parts)}{OF_SHARD}" if listed.by_shard else ""
        look.names.add(f"{of}{known}")
        if listed.contains([known], place)[0]:
            look.met += 1
            if until_met:
                return False
        elif len(look.others) < _EXAMPLES:
            look.others.append(f"{of}{known}")
    return True


def _name(item: Sample | Failure, name: Name | None) -> str | None:
    if name is None or isinstance(item, Failure):
        return item.key if name is None else None
    try:
        return name(item)
    except SampleError:  # it goes to errors/ when it is read in earnest
        return None


def _without_ending(listed: KeyList) -> set[str]:
    """The keys that are meant where names of files were listed."""
    meant = set()
    for example in listed.examples:
        shard, of, key = example.rpartition(OF_SHARD) if listed.by_shard else ("", "", example)
        split = split_name(key)
        meant |= set() if split is None else {f"{shard}{of}{split[0]}"}
    return meant - set(listed.examples)


def _any_met(
    listed: KeyList, shards: Iterable[FileInfo], storage: Storage, name: Name | None, look: _Look
) -> bool:
    bare = _without_ending(listed)
    for shard in shards:
        one = _Look()
        _look_into(shard, listed, storage, name, one, None, until_met=True)
        look.names |= one.names & bare
        if one.met:
            return True
    return False


def _none_met(listed: KeyList, look: _Look, where: str) -> str:
    hint = "write keys as they stand in the shards"
    if _without_ending(listed) & look.names:
        hint = "these are file names; a key is the name up to the first dot, without it"
    return (
        f"{where}: none of its {len(listed)} samples stands in these shards. "
        f"{_both(listed, look)}: {hint}"
    )


def _both(listed: KeyList, look: _Look) -> str:
    there = ", ".join(map(repr, look.others[:_EXAMPLES])) or "no readable sample"
    return f"It has {listed.named(look.names)}, the shards have {there}"
