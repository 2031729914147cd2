"""Where what is scored comes from: shards under models, or stored embeddings; chosen once a run.

Shards are in :mod:`multimem_ray.scoring.shard_source`, stored embeddings in
:mod:`multimem_ray.embeddings.source`, which also chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from multimem_ray.distributed.executor import Executor, Row
from multimem_ray.errors import MultiMemError
from multimem_ray.progress import Progress


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


class Actor:
    """An actor: in the driver no more than a name, since torch takes seconds to load.

    Args:
        make: Makes what does the rows of work.
    """

    def __init__(self, make: Callable[[], Callable[[Row], Row]]) -> None:
        self._do: Callable[[Row], Row] | MultiMemError
        try:
            self._do = make()
        except MultiMemError as error:
            # Ray makes of an actor that could not be made pages about dead actors, after trying
            # again and again; of a row that failed, the error as it is.
            self._do = error

    def __call__(self, row: Row) -> Row:
        if isinstance(self._do, MultiMemError):
            raise self._do
        return self._do(row)
