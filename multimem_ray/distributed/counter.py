"""A counter that work in other processes counts on: a small Ray actor that costs no core.

A module of its own, so that the actor's process loads nothing that it does not need.
"""

from __future__ import annotations

import logging
from typing import Any, Self

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)


class _ProgressCounts:
    """Counts of work done, by task; whatever else was told last stands beside."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._stopping = False

    def advance(self, task: str, amount: int, notes: dict[str, Any]) -> None:
        self._done[task] = self._done.get(task, 0) + amount
        self._notes.setdefault(task, {}).update(notes)

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        return self._done.get(task, 0), self._notes.get(task, {})

    def stop(self) -> None:
        self._stopping = True

    def is_stopping(self) -> bool:
        return self._stopping


class ProgressActor:
    """Handle to the counting actor; picklable, and cheap to tell things to."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._seen: dict[str, tuple[int, dict[str, Any]]] = {}
        self._asked: Any = None

    @classmethod
    def create(cls) -> Self:
        """A new counter; Ray must be running.

        On the node of the caller: any other one may be taken away, by its autoscaler even for
        being idle, since a counter takes no core.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(num_cpus=0)(_ProgressCounts)
        return cls(actor.options(scheduling_strategy=here).remote())

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        """``amount`` more units are done; does not wait."""
        self._actor.advance.remote(task, amount, notes)

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        """Units done, and the latest notes; those of before if the actor is lost."""
        try:
            self._seen[task] = ray.get(self._actor.look.remote(task))
        except RayError as error:
            # What is shown is not worth ending what is done.
            logger.debug("the counter cannot be seen: %s", error)
        return self._seen.get(task, (0, {}))

    def stop(self) -> None:
        """Ask whoever counts to end; does not wait."""
        self._actor.stop.remote()

    def is_stopping(self) -> bool:
        """Whether whoever counts shall end, as was known at the question before; does not wait."""
        if self._asked is None:
            self._asked = self._actor.is_stopping.remote()
        if not ray.wait([self._asked], timeout=0)[0]:
            return False
        asked, self._asked = self._asked, None
        try:
            return bool(ray.get(asked))
        except RayError as error:
            logger.debug("the counter cannot be asked: %s", error)
            return False
