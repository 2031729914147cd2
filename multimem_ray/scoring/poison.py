"""Poison samples: find the sample that kills its process, record it, go on without it.

A crashing decoder or an out-of-memory leaves no error behind, only a dead process. The first
attempt at a shard costs nothing extra. Whoever comes after a death writes down what it is about to
do, chunk by chunk; the one after that steps through the chunk that was last written down, sample
by sample; a sample that takes a process along twice is recorded as ``killed_worker`` and left out.
Two deaths, because a process may also be killed by chance, while it holds an innocent sample.
Scores, embeddings and the held-out set are all made this way after a death.

    parts/<run>/<shard>.<source>/attempt.json
    held_out/parts/<run>/notes/<shard>/attempt.json
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from multimem_ray.errors import StorageError
from multimem_ray.own_files import parsed
from multimem_ray.sample import Failure
from multimem_ray.scoring.chunks import Item, Placed
from multimem_ray.scoring.shard import Output, part_of
from multimem_ray.store.parts import Part, PartFolder, R

logger = logging.getLogger(__name__)

NAME = "attempt.json"
KILLED = "killed_worker"
DEATHS_OF_A_SAMPLE = 2
DEATHS_OF_A_SHARD = 32


@dataclass
class CrashLog:
    """The notes of those who died on a shard.

    Args:
        deaths: How many they were, at least.
        stage: What was being done to the positions ``first`` to ``end``, or empty.
        repeated: Deaths with these very positions, when it is only one.
        suspects: Ranges of positions that are gone through one by one.
        killers: Position to the stage in which it killed.
    """

    deaths: int = 0
    stage: str = ""
    first: int = 0
    end: int = 0
    repeated: int = 0
    suspects: list[tuple[int, int]] = field(default_factory=list)
    killers: dict[int, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: PartFolder[Any]) -> CrashLog:
        """The notes so far, with what follows from the death that they end with."""
        url = folder.storage.join(folder.url, NAME)
        notes = cls()
        if folder.storage.exists(url):
            try:
                known = parsed(folder.storage.read_bytes(url), url, "the notes are begun anew")
                known["suspects"] = [(int(first), int(end)) for first, end in known["suspects"]]
                known["killers"] = {int(at): str(stage) for at, stage in known["killers"].items()}
                notes = cls(**known)
                _ = notes.deaths + notes.first + notes.end + notes.repeated
            except (StorageError, KeyError, TypeError, ValueError, AttributeError) as error:
                # What a sample did shows again; its deaths are counted from here.
                logger.warning("%s: damaged, the notes are begun anew (%s)", url, error)
                notes = cls()
        notes.deaths += 1
        if notes.stage and notes.end - notes.first > 1:
            notes.suspects.append((notes.first, notes.end))
            notes.repeated = 0
        elif notes.stage:
            notes.repeated += 1
            if (notes.first, notes.end) not in notes.suspects:
                # It was the only one of a batch that could have held more: from now on, alone.
                notes.suspects.append((notes.first, notes.end))
            if notes.repeated >= DEATHS_OF_A_SAMPLE:
                notes.killers[notes.first] = notes.stage
                notes.repeated = 0
        notes.stage = ""
        return notes

    def begin(self, folder: PartFolder[Any], stage: str, first: int, end: int) -> None:
        """Note what is about to be done; if nothing follows, it was the end."""
        if (first, end) != (self.first, self.end):
            self.repeated = 0
        self.stage, self.first, self.end = stage, first, end
        self.save(folder)

    def done(self, folder: PartFolder[Any]) -> None:
        """Note that what was begun last did no harm."""
        self.stage = ""
        self.save(folder)

    def save(self, folder: PartFolder[Any]) -> None:
        """Write the notes."""
        data = json.dumps(asdict(self)).encode()
        folder.storage.write_atomic(folder.storage.join(folder.url, NAME), data)

    def size(self, position: int, most: int) -> int:
        """How many positions to take at once from here on: up to ``most``, or one of a suspect."""
        for first, end in self.suspects:
            if first <= position < end:
                return 1
            if position < first:
                most = min(most, first - position)
        following = [at - position for at in self.killers if at > position]
        return 1 if position in self.killers else min([most, *following])

    @property
    def hopeless(self) -> bool:
        """Whether the shard has killed enough."""
        return self.deaths > DEATHS_OF_A_SHARD


def isolated_parts(output: Output[R], shard: str, folder: PartFolder[R]) -> list[Part[R]]:
    """All parts of a shard on which a process died, ascending; each is kept as soon as it is there.

    Args:
        folder: Where parts and notes lie.
    """
    notes = CrashLog.load(folder)
    notes.save(folder)
    reader, parts = output.reader, folder.read()
    items = reader.undone(shard, [(part.first, part.end) for part in parts])
    position = _next(0, parts)
    while True:
        if notes.killers.get(position) == "read":
            failures = reader.unread(shard, position, _unreadable(position))
            parts.append(_failed(output, position, failures))
            break
        size = notes.size(position, reader.batch_size)
        notes.begin(folder, "read", position, position + size)
        taken = list(_adjacent(items, position, size, parts))
        if not taken:
            break
        if notes.hopeless or position in notes.killers:
            part = _failed(output, position, _given_up(position, taken, notes))
        else:
            notes.begin(folder, "decode", position, position + len(taken))
            chunk = reader.chunk(shard, position, taken)
            notes.begin(folder, "score", position, position + len(taken))
            part = part_of(output, chunk)
        folder.write(part)
        parts.append(part)
        position = _next(part.end, parts)
    notes.done(folder)
    return sorted(parts, key=lambda part: part.first)


def _next(position: int, parts: list[Part[R]]) -> int:
    """The first position from here on that no part covers."""
    for part in sorted(parts, key=lambda part: part.first):
        if part.first <= position < part.end:
            position = part.end
    return position


def _adjacent(
    items: Iterator[Placed], first: int, size: int, parts: list[Part[R]]
) -> Iterator[Item]:
    """Up to ``size`` items from position ``first`` on, before the next part."""
    later = [part.first for part in parts if part.first > first]
    return (item for _, item in islice(items, min([size, *(at - first for at in later)])))


def _given_up(position: int, taken: list[Item], notes: CrashLog) -> list[Failure]:
    """The positions as failures; what the reader already gave up stays as it is."""
    stage = notes.killers.get(position, "score")
    reason = (
        f"its process was killed {DEATHS_OF_A_SAMPLE} times by this very sample"
        if position in notes.killers
        else f"given up, since processes were killed {notes.deaths} times by samples of this shard"
    )
    detail = f"{reason}; is it beyond the memory of a worker, or does a library crash on it?"
    return [
        item
        if isinstance(item, Failure)
        else Failure(item.shard, item.key, item.index, stage, KILLED, detail)
        for item in taken
    ]


def _unreadable(position: int) -> str:
    return f"reading kills the process after {position} samples; copy the shard again, or repack it"


def _failed(output: Output[R], position: int, failures: list[Failure]) -> Part[R]:
    return Part(position, position + len(failures), output.joined([]), 0, failures)
