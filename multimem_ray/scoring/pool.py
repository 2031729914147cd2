"""How many scoring actors there are: from the configuration, or from what the cluster brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multimem_ray.distributed.capacity import MOST_ASKED, capacity, wait_for_capacity
from multimem_ray.distributed.session import is_private
from multimem_ray.progress import Progress
from multimem_ray.run import Run


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

    def strategy(self) -> Any:
        """The pool, for Ray Data."""
        from ray.data import ActorPoolStrategy

        # One shard in work and one at hand: what an actor has been given, no idle one can take.
        return ActorPoolStrategy(
            min_size=self.least,
            max_size=self.most,
            initial_size=self.first,
            max_tasks_in_flight_per_actor=2,
        )


def actor_pool(run: Run, shards: int, progress: Progress) -> Pool:
    """The pool for so many shards; there is room for one of its actors when this returns.

    ``auto`` fills the nodes that are there. On a cluster it grows from there as long as shards wait
    and nodes come, and gives them back at the end.

    Raises:
        ConfigError, ClusterError: See :func:`multimem_ray.distributed.capacity.wait_for_capacity`.
    """
    wanted, private = run.config.resources.score, is_private(run.config)
    bundle = {"GPU": wanted.gpus} if wanted.gpus else {"CPU": float(wanted.cpus)}
    key = "resources.score.gpus" if wanted.gpus else "resources.score.cpus"
    least, most = _bounds(wanted.actors, shards)
    wait_for_capacity(run.config, bundle, key, progress, ask=min(most, shards))
    if wanted.actors != "auto":
        # At full size from the start: a pool that grows step by step wastes minutes.
        return Pool(least, most, max(least, min(most, shards)))
    now = max(1, min(capacity(bundle), shards))
    return Pool(now, now, now) if private else Pool(1, max(now, most), now)


def _bounds(actors: int | tuple[int, int] | str, shards: int) -> tuple[int, int]:
    if isinstance(actors, tuple):
        return actors
    if isinstance(actors, int):
        return actors, actors
    return 1, min(shards, MOST_ASKED)
