"""How many actors there are: from the configuration, or from what the cluster brings."""

from __future__ import annotations

from typing import Any

from multimem_ray.config import ScoreResources
from multimem_ray.distributed.capacity import MOST_ASKED, capacity, wait_for_capacity
from multimem_ray.distributed.executor import Pool
from multimem_ray.progress import Progress


def strategy(pool: Pool) -> Any:
    """The pool, for Ray Data."""
    from ray.data import ActorPoolStrategy

    # One shard in work and one at hand: what an actor has been given, no idle one can take.
    return ActorPoolStrategy(
        min_size=pool.least,
        max_size=pool.most,
        initial_size=pool.first,
        max_tasks_in_flight_per_actor=2,
    )


def actor_pool(
    resources: ScoreResources, shards: int, progress: Progress, *, private: bool
) -> Pool:
    """The pool for so many shards; there is room for one of its actors when this returns.

    ``auto`` fills the nodes that are there. On a cluster it grows from there as long as shards wait
    and nodes come, and gives them back at the end.

    Args:
        private: Whether no node can join; see :func:`~multimem_ray.distributed.session.is_private`.

    Raises:
        ConfigError, ClusterError: See :func:`multimem_ray.distributed.capacity.wait_for_capacity`.
    """
    bundle = {"GPU": resources.gpus} if resources.gpus else {"CPU": float(resources.cpus)}
    key = "resources.score.gpus" if resources.gpus else "resources.score.cpus"
    least, most = _bounds(resources.actors, shards)
    wait_for_capacity(bundle, key, progress, private=private, ask=min(most, shards))
    if resources.actors != "auto":
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
