"""A board that work in other processes counts on: a small Ray actor that costs no core.

A module of its own, so that the actor's process loads nothing that it does not need.
"""

from __future__ import annotations

from typing import Any, Self

import ray


class _BoardActor:
    """Counts of work done, by task; whatever else was told last stands beside."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._notes: dict[str, dict[str, Any]] = {}

    def advance(self, task: str, amount: int, notes: dict[str, Any]) -> None:
        self._done[task] = self._done.get(task, 0) + amount
        self._notes.setdefault(task, {}).update(notes)

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        return self._done.get(task, 0), self._notes.get(task, {})


class Board:
    """Handle to the counting actor; picklable, and cheap to tell things to."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def create(cls) -> Self:
        """A new board; Ray must be running."""
        return cls(ray.remote(num_cpus=0)(_BoardActor).remote())

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        """``amount`` more units are done; does not wait."""
        self._actor.advance.remote(task, amount, notes)

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        """Units done, and the latest notes."""
        seen: tuple[int, dict[str, Any]] = ray.get(self._actor.look.remote(task))
        return seen


class NoBoard(Board):
    """Counts nothing: for work in this very process, without Ray."""

    def __init__(self) -> None:
        super().__init__(None)

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        """See :meth:`Board.advance`."""

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        """See :meth:`Board.look`."""
        return 0, {}
