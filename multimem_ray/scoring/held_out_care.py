"""The held-out samples of a shard on which a process died: the deadly ones are found and left out.

It goes as with shards that are scored (:mod:`multimem_ray.scoring.poison`): what is about to be
done is noted down, batch by batch; whoever comes after a death steps through the noted batch sample
by sample; who kills twice is left out. Positions count the chosen samples of the shard, and each
batch is kept as soon as it is embedded, so that a death costs no more than its batch.

    held_out/parts/<run>/notes/<shard>/attempt.json
    held_out/parts/<run>/notes/<shard>/<first>-<end>.safetensors
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from multimem_ray.sample import Sample
from multimem_ray.scoring.held_out_parts import Embedded, Killed
from multimem_ray.scoring.held_out_plan import Chosen
from multimem_ray.scoring.poison import DEATHS_OF_A_SAMPLE, CrashLog
from multimem_ray.store.parts import PartFolder

logger = logging.getLogger(__name__)

_SUFFIX = ".safetensors"
_WAY_OUT = "is it beyond the memory of a worker, or does a library crash on it?"

D = TypeVar("D")


def embedded_carefully(
    chosen: Chosen,
    samples: Iterable[Sample],
    most: int,
    folder: PartFolder,
    decode: Callable[[Sequence[Sample]], D],
    embed: Callable[[D], Embedded],
) -> list[Embedded]:
    """The held-out samples of a shard in batches, without those that kill their process.

    Args:
        chosen: The shard and the keys.
        samples: Those of the keys that are there, in the order of the shard.
        most: Most samples of a batch.
        folder: Where notes and batches are kept.
        decode: What may kill first.
        embed: What may kill then; of no sample that could be decoded, it gives an empty part.
    """
    notes = CrashLog.load(folder)
    notes.save(folder)
    done = list(_kept(folder))
    position, remaining = (done[-1][1] if done else 0), iter(samples)
    parts = [part for _, _, part in done]
    seen = {sample.key for sample in islice(remaining, position)}
    while True:
        if notes.hopeless or notes.killers.get(position) == "read":
            left = [key for key in chosen.keys if key not in seen]
            parts.append(_left_out(chosen, left, "read", _given_up(notes), embed(decode([]))))
            break
        size = notes.size(position, most)
        notes.begin(folder, "read", position, position + size)
        taken = list(islice(remaining, size))
        if not taken:
            break
        if stage := notes.killers.get(position):
            keys = [sample.key for sample in taken]
            part = _left_out(chosen, keys, stage, _killed(), embed(decode([])))
        else:
            part = _embedded(taken, position, notes, folder, decode, embed)
        end = position + len(taken)
        folder.storage.write_atomic(_url(folder, position, end), part.to_bytes())
        parts.append(part)
        seen |= {sample.key for sample in taken}
        position = end
    notes.done(folder)
    return parts


def _embedded(
    taken: Sequence[Sample],
    position: int,
    notes: CrashLog,
    folder: PartFolder,
    decode: Callable[[Sequence[Sample]], D],
    embed: Callable[[D], Embedded],
) -> Embedded:
    notes.begin(folder, "decode", position, position + len(taken))
    decoded = decode(taken)
    notes.begin(folder, "score", position, position + len(taken))
    return embed(decoded)


def _left_out(
    chosen: Chosen, keys: Sequence[str], stage: str, reason: str, nothing: Embedded
) -> Embedded:
    for key in keys:
        logger.warning("%s: held-out sample %s is left out: %s", chosen.shard, key, reason)
    killed = tuple(Killed(chosen.shard, key, stage, f"{reason}; {_WAY_OUT}") for key in keys)
    return Embedded(nothing.mean, nothing.alignment, nothing.present, killed)


def _killed() -> str:
    return f"its process was killed {DEATHS_OF_A_SAMPLE} times by this very sample"


def _given_up(notes: CrashLog) -> str:
    return f"given up, since processes were killed {notes.deaths} times by samples of this shard"


def _kept(folder: PartFolder) -> Iterator[tuple[int, int, Embedded]]:
    """Batches from an earlier attempt, from the first position on without a gap."""
    names = (name for name in folder.names() if name.endswith(_SUFFIX))
    spans = sorted(tuple(map(int, name.removesuffix(_SUFFIX).split("-"))) for name in names)
    position = 0
    for first, end in spans:
        if first == position:
            data = folder.storage.read_bytes(_url(folder, first, end))
            yield first, end, Embedded.from_bytes(data)
            position = end


def _url(folder: PartFolder, first: int, end: int) -> str:
    return folder.storage.join(folder.url, f"{first:09d}-{end:09d}{_SUFFIX}")
