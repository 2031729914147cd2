"""Where what is scored comes from: shards under models, or stored embeddings; chosen once a run.

Stored embeddings are in :mod:`multimem_ray.embeddings.source`, which also chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from multimem_ray.distributed.executor import Executor, Row
from multimem_ray.errors import SampleError
from multimem_ray.progress import Progress
from multimem_ray.run import Run
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard


class Source(Protocol):
    """What the stages ask of it; picklable, and light for a driver."""

    splits: ClassVar[bool]
    """Whether decoding may go on apart from embedding."""

    def prepare(self, progress: Progress, executor: Executor) -> None:
        """Whatever must be there before the first row of work."""

    def clear(self) -> None:
        """Nothing of what was prepared stays once all is committed."""

    def held_out_of(self, url: str) -> tuple[list[str], list[str]]:
        """Keys of the held-out samples of a shard, and what they are balanced by."""

    def scorer(self) -> Callable[[Row], Row]:
        """Does rows of work in an actor; made there, since it loads torch and models."""


@dataclass(frozen=True)
class ShardSource:
    """Shards, and the models of a run."""

    run: Run
    splits: ClassVar[bool] = True

    def prepare(self, progress: Progress, executor: Executor) -> None:
        """Nothing is."""

    def clear(self) -> None:
        """Nothing was."""

    def held_out_of(self, url: str) -> tuple[list[str], list[str]]:
        run, balance = self.run, self.run.config.held_out.balance
        keys, labels = list[str](), list[str]()
        for item in read_shard(url, run.storage):
            if not isinstance(item, Sample):
                continue
            try:
                if run.held_out_rule.is_held_out([run.group(item)], url)[0]:
                    labels.append(str(item.field(balance)) if balance else "")
                    keys.append(item.key)
            except SampleError:
                continue
        return keys, labels

    def scorer(self) -> Callable[[Row], Row]:
        from multimem_ray.scoring.actor import ShardScorer

        return ShardScorer(self.run)


class Actor:
    """An actor: in the driver no more than a name, since torch takes seconds to load.

    Args:
        make: Makes what does the rows of work.
    """

    def __init__(self, make: Callable[[], Callable[[Row], Row]]) -> None:
        self._do = make()

    def __call__(self, row: Row) -> Row:
        return self._do(row)
