"""What to do with a shard that kills its process: find the sample, record it, go on without it.

A crashing decoder or an out-of-memory leaves no error behind, only a dead process. The first
attempt at a shard costs nothing extra. Whoever comes after a death writes down what it is about to
do, chunk by chunk; the one after that steps through the chunk that was last written down, sample
by sample; a sample that takes a process along twice is recorded as ``killed_worker`` and left out.
Two deaths, because a process may also be killed by chance, while it holds an innocent sample.

    parts/<run>/<shard>.<source>/attempt.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice

from multimem_ray.run import Run
from multimem_ray.sample import Failure, Sample
from multimem_ray.scoring.bank import ScoringBank
from multimem_ray.scoring.chunks import decoded_chunk, undone
from multimem_ray.scoring.held_out_stats import HeldOutStatistics
from multimem_ray.scoring.output import SCORES, Output
from multimem_ray.scoring.shard import score_chunk
from multimem_ray.storage import FileInfo
from multimem_ray.store.parts import Part, PartFolder

NAME = "attempt.json"
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
    def load(cls, folder: PartFolder) -> CrashLog:
        """The notes so far, with what follows from the death that they end with."""
        url = folder.storage.join(folder.url, NAME)
        notes = cls()
        if folder.storage.exists(url):
            known = json.loads(folder.storage.read_bytes(url))
            known["suspects"] = [tuple(suspect) for suspect in known["suspects"]]
            known["killers"] = {int(at): stage for at, stage in known["killers"].items()}
            notes = cls(**known)
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

    def begin(self, folder: PartFolder, stage: str, first: int, end: int) -> None:
        """Note what is about to be done; if nothing follows, it was the end."""
        if (first, end) != (self.first, self.end):
            self.repeated = 0
        self.stage, self.first, self.end = stage, first, end
        self.save(folder)

    def done(self, folder: PartFolder) -> None:
        """Note that what was begun last did no harm."""
        self.stage = ""
        self.save(folder)

    def save(self, folder: PartFolder) -> None:
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


def careful_parts(
    run: Run,
    bank: ScoringBank,
    held_out: HeldOutStatistics,
    shard: FileInfo,
    folder: PartFolder,
    product: Output = SCORES,
) -> list[Part]:
    """All parts of a shard on which a process died, ascending; each is kept as soon as it is there.

    Args:
        held_out: Mean vectors of the held-out set, and with a target its levels.
        folder: Where parts and notes lie.
        product: What is made of the samples.
    """
    notes = CrashLog.load(folder)
    notes.save(folder)
    parts = folder.read()
    items = undone(run, shard.url, [(part.first, part.end) for part in parts])
    position = _next(0, parts)
    while True:
        size = notes.size(position, run.config.scoring.batch_size)
        if notes.killers.get(position) == "read":
            parts.append(_unreadable(run, shard, position, product))
            return sorted(parts, key=lambda part: part.first)
        notes.begin(folder, "read", position, position + size)
        taken = list(_adjacent(items, position, size, parts))
        if not taken:
            return sorted(parts, key=lambda part: part.first)
        if notes.hopeless or position in notes.killers:
            part = _given_up(run, position, taken, notes, product)
        else:
            part = _scored(run, bank, held_out, shard, folder, notes, position, taken, product)
        folder.write(part)
        parts.append(part)
        position = _next(part.end, parts)


def _next(position: int, parts: list[Part]) -> int:
    """The first position from here on that no part covers."""
    for part in sorted(parts, key=lambda part: part.first):
        if part.first <= position < part.end:
            position = part.end
    return position


def _adjacent(
    items: Iterator[tuple[int, Sample | Failure]], first: int, size: int, parts: list[Part]
) -> Iterator[Sample | Failure]:
    """Up to ``size`` items from position ``first`` on, before the next part."""
    later = [part.first for part in parts if part.first > first]
    return (item for _, item in islice(items, min([size, *(at - first for at in later)])))


def _scored(
    run: Run,
    bank: ScoringBank,
    held_out: HeldOutStatistics,
    shard: FileInfo,
    folder: PartFolder,
    notes: CrashLog,
    position: int,
    taken: list[Sample | Failure],
    product: Output,
) -> Part:
    notes.begin(folder, "decode", position, position + len(taken))
    keep = product.keeps_held_out
    chunk = decoded_chunk(run, shard.url, position, taken, keep_held_out=keep)
    notes.begin(folder, "score", position, position + len(taken))
    return score_chunk(run, bank, held_out, shard.url, chunk, product)


def _given_up(
    run: Run, position: int, taken: list[Sample | Failure], notes: CrashLog, product: Output
) -> Part:
    """The positions as failures; what the reader already gave up stays as it is."""
    stage = notes.killers.get(position, "score")
    reason = (
        f"its process was killed {DEATHS_OF_A_SAMPLE} times by this very sample"
        if position in notes.killers
        else f"given up, since processes were killed {notes.deaths} times by samples of this shard"
    )
    detail = f"{reason}; is it beyond the memory of a worker, or does a library crash on it?"
    failures = [
        item
        if isinstance(item, Failure)
        else Failure(item.shard, item.key, item.index, stage, "killed_worker", detail)
        for item in taken
    ]
    return _failed(run, position, failures, product)


def _unreadable(run: Run, shard: FileInfo, position: int, product: Output) -> Part:
    detail = (
        f"reading kills the process after {position} samples; copy the shard again, or repack it"
    )
    failure = Failure(shard.url, None, None, "read", "killed_worker", detail)
    return _failed(run, position, [failure], product)


def _failed(run: Run, position: int, failures: list[Failure], product: Output) -> Part:
    end = position + len(failures)
    return Part(position, end, product.schema(run).empty_table(), 0, failures)
