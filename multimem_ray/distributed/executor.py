"""Where the work of a run is done: on the nodes of Ray, or in this very process.

The stages of an audit (:mod:`multimem_ray.audit`) hand out rows of work and banks of models; an
executor does them. What is done, and what it leaves in the run's folder, is the same either way,
so a run that one executor began is finished by the other.

    RayExecutor    pools of actors, tasks on any node, banks as runs of Ray Train
    LocalExecutor  one thing after the other in this process, without Ray: for notebooks, tests
                   and studies; a sample that kills its process takes this one along

Nothing here loads Ray; :mod:`multimem_ray.distributed.on_ray` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from multimem_ray.config import ScoreResources
from multimem_ray.errors import ConfigError
from multimem_ray.interrupts import status
from multimem_ray.progress import Counter, Progress, Shown

T = TypeVar("T")
Row = dict[str, Any]
"""A piece of work, or what is told of it when it is done: plain values by name."""

Bundle = Mapping[str, float]
"""Resources that must lie on one node, such as ``{"GPU": 1}``."""

ExecutorName = Literal["ray", "local"]


@dataclass(frozen=True)
class Pool:
    """A pool of actors.

    Args:
        least: As many are kept while there is work.
        most: It grows to this if shards wait and nodes come.
        first: It starts with these.
    """

    least: int
    most: int
    first: int


class Executor(Protocol):
    """Does what the stages hand out.

    Attributes:
        distributed: Whether there are other processes and nodes.
    """

    distributed: bool

    def session(self) -> AbstractContextManager[None]:
        """What must hold while work is done."""

    def nodes(self) -> list[Mapping[str, float]]:
        """Resources of the nodes that are there."""

    def require(
        self, bundle: Bundle, key: str, progress: Progress, *, ask: int = 1, least: int = 1
    ) -> None:
        """Return when there is room for ``least`` bundles.

        Args:
            key: The configuration's key that asks for them.
            ask: Bundles to ask an autoscaler for while at it.

        Raises:
            ConfigError: This machine has not what is asked for, and no other can come.
            ClusterError: No such node came.
        """

    def pool(self, resources: ScoreResources, shards: int, progress: Progress) -> Pool:
        """The actors for so many shards; there is room for one when this returns.

        Raises:
            ConfigError, ClusterError: See :meth:`require`.
        """

    def actors(
        self,
        actor: Callable[..., Callable[[Row], Row]],
        args: tuple[Any, ...],
        rows: Sequence[Row],
        pool: Pool,
        resources: ScoreResources,
    ) -> Iterator[Row]:
        """Do rows of work over actors; what each row became, in any order.

        Args:
            actor: Called with ``args`` once for each actor, then with one row after the other.
        """

    def tasks(
        self, task: Callable[[Row], Row], rows: Sequence[Row], retries: int | None = None
    ) -> Iterator[Row]:
        """Do rows of work, each on one core of any node; what each became, in their order."""

    def call(self, function: Callable[[], T], gpus: float) -> T:
        """What a function returns where there is such a part of a GPU."""

    def elsewhere(self, function: Callable[[], T]) -> T | None:
        """What a function returns on another node than this; None if there is no other."""

    def counter(self, shown: Shown, task: str) -> Counter:
        """What a task is counted on."""

    def fit(self, loop: Callable[[Any], None], argument: Any, *, workers: int, gpus: float) -> None:
        """Run a training loop, in several workers as ranks of one training.

        Args:
            loop: Called with ``argument`` in every worker.
            gpus: Of all workers together.
        """


class LocalExecutor:
    """Does everything here, one thing after the other."""

    distributed = False

    @contextmanager
    def session(self) -> Iterator[None]:
        """Leaves the number of torch's threads as it was."""
        import torch

        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def nodes(self) -> list[Mapping[str, float]]:
        """This machine."""
        import torch

        return [{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}]

    def require(
        self, bundle: Bundle, key: str, progress: Progress, *, ask: int = 1, least: int = 1
    ) -> None:
        """Raise ConfigError where this machine lacks what is asked for."""
        del progress, ask
        (here,) = self.nodes()
        lacking = [name for name, amount in bundle.items() if here[name] < amount * least]
        if lacking:
            raise ConfigError(
                f"{key} asks for {bundle[lacking[0]] * least:g} {lacking[0]}, and this machine has "
                f"{here[lacking[0]]:g}; lower it, or let Ray do the work on a cluster that has them"
            )

    def pool(self, resources: ScoreResources, shards: int, progress: Progress) -> Pool:
        """One actor, whatever is configured."""
        del shards
        if resources.gpus:
            self.require({"GPU": resources.gpus}, "resources.score.gpus", progress)
        return Pool(1, 1, 1)

    def actors(
        self,
        actor: Callable[..., Callable[[Row], Row]],
        args: tuple[Any, ...],
        rows: Sequence[Row],
        pool: Pool,
        resources: ScoreResources,
    ) -> Iterator[Row]:
        """One actor that does the rows in their order."""
        del pool, resources
        return map(actor(*args), rows)

    def tasks(
        self, task: Callable[[Row], Row], rows: Iterable[Row], retries: int | None = None
    ) -> Iterator[Row]:
        """The rows in their order."""
        del retries
        return map(task, rows)

    def call(self, function: Callable[[], T], gpus: float) -> T:
        """What the function returns here."""
        del gpus
        return function()

    def elsewhere(self, function: Callable[[], T]) -> T | None:
        """None: there is no other node."""
        del function
        return None

    def counter(self, shown: Shown, task: str) -> Counter:
        """One that shows what is counted at once."""
        return _LocalCounter(shown, task)

    def fit(self, loop: Callable[[Any], None], argument: Any, *, workers: int, gpus: float) -> None:
        """Run the loop in this thread, so that an interrupt ends it.

        Raises:
            ConfigError: Several workers are asked for.
        """
        del gpus
        if workers > 1:
            raise ConfigError(
                f"resources.train.workers_per_bank = {workers}: in one process a bank has one "
                "worker; set it to 1, or train on Ray"
            )
        loop(argument)


LOCAL = LocalExecutor()


class _LocalCounter:
    def __init__(self, shown: Shown, task: str) -> None:
        self._shown, self._task, self._done = shown, task, 0
        self._is_stopped = False

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        if task == self._task:
            self._done += amount
            loss = notes.get("loss")
            self._shown.update(self._done, "" if loss is None else f"loss {loss:.3f}")

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        return (self._done if task == self._task else 0), {}

    def stop(self) -> None:
        self._is_stopped = True

    def is_stopping(self) -> bool:
        return self._is_stopped or status() is not None


def total(nodes: Iterable[Mapping[str, float]], resource: str) -> int:
    """How much of a resource, such as ``CPU``, the nodes have together."""
    return int(sum(node.get(resource, 0) for node in nodes))


def fits(node: Mapping[str, float], bundle: Bundle) -> int:
    """How often the bundle fits on the node."""
    return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in bundle.items())


def node_cores(nodes: Iterable[Mapping[str, float]], bundle: Bundle) -> int:
    """Cores of the largest node with place for a bundle, at least 1."""
    return max([1, *(int(node.get("CPU", 0)) for node in nodes if fits(node, bundle))])
