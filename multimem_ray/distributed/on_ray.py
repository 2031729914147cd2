"""The executor that Ray is behind: Ray Data for rows of work, Ray Train for banks."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray

from multimem_ray.config import ScoreResources
from multimem_ray.distributed.capacity import live_nodes, wait_for_capacity
from multimem_ray.distributed.counter import ProgressActor
from multimem_ray.distributed.executor import Bundle, Pool, Row
from multimem_ray.distributed.pool import actor_pool, strategy
from multimem_ray.distributed.session import data_context, is_private, ray_session
from multimem_ray.errors import MultiMemError
from multimem_ray.progress import Counter, Progress, Shown

T = TypeVar("T")
MOST_BLOCKS = 10_000


class RayExecutor:
    """Hands work to Ray.

    Args:
        address: The cluster to join; default: a private one on this machine, or the cluster of the
            job.
    """

    distributed = True

    def __init__(self, address: str | None = None) -> None:
        self._address = address

    def session(self) -> AbstractContextManager[None]:
        """Ray for the length of the block; see :func:`ray_session`."""
        return ray_session(self._address)

    def nodes(self) -> list[Mapping[str, float]]:
        """Resources of the nodes that live."""
        return [*live_nodes()]

    def require(
        self, bundle: Bundle, key: str, progress: Progress, *, ask: int = 1, least: int = 1
    ) -> None:
        """Wait for room; see :func:`wait_for_capacity`."""
        private = is_private(self._address)
        wait_for_capacity(bundle, key, progress, private=private, ask=ask, least=least)

    def pool(self, resources: ScoreResources, shards: int, progress: Progress) -> Pool:
        """As configured, or as many as there is room for; see :func:`actor_pool`."""
        return actor_pool(resources, shards, progress, private=is_private(self._address))

    def actors(
        self,
        actor: Callable[..., Callable[[Row], Row]],
        args: tuple[Any, ...],
        rows: Sequence[Row],
        pool: Pool,
        resources: ScoreResources,
    ) -> Iterator[Row]:
        """A pool of actors of Ray Data; what dies is started again, and its row is done again."""
        import ray.data

        with data_context():
            flow = ray.data.from_items(
                list(rows), override_num_blocks=min(len(rows), MOST_BLOCKS)
            ).map(
                actor,  # type: ignore[arg-type]
                fn_constructor_args=args,
                compute=strategy(pool),
                num_cpus=0 if resources.gpus else resources.cpus,
                num_gpus=resources.gpus or None,
                ray_remote_args_fn=actor_retries,
            )
        return unwrapped(flow.iter_rows())

    def tasks(
        self, task: Callable[[Row], Row], rows: Sequence[Row], retries: int | None = None
    ) -> Iterator[Row]:
        """Tasks of Ray Data on one core each."""
        import ray.data

        bound: dict[str, Any] = {} if retries is None else {"max_retries": retries}
        with data_context(preserve_order=True):
            blocks = min(len(rows), MOST_BLOCKS)
            source = ray.data.from_items(list(rows), override_num_blocks=blocks)
            flow = source.map(task, num_cpus=1, **bound)
        return unwrapped(flow.iter_rows())

    def call(self, function: Callable[[], T], gpus: float) -> T:
        """What the function returns in a task that holds such a part of a GPU."""
        ask = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=2)(function)
        result: T = ray.get(ask.remote())
        return result

    def elsewhere(self, function: Callable[[], T]) -> T | None:
        """What the function returns on one of the nodes where the driver is not; None: no such."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        others = [n["NodeID"] for n in nodes if n["Alive"] and n["NodeID"] != here]
        if not others:
            return None

        def task() -> T:
            return function()

        there = NodeAffinitySchedulingStrategy(others[0], soft=False)
        remote = ray.remote(num_cpus=0, max_retries=2)(task).options(scheduling_strategy=there)
        return ray.get(remote.remote())

    def counter(self, shown: Shown, task: str) -> Counter:
        """A small actor; :func:`~multimem_ray.progress.finished_with_progress` shows it."""
        del shown, task
        return ProgressActor.create()

    def fit(self, loop: Callable[[Any], None], argument: Any, *, workers: int, gpus: float) -> None:
        """One run of Ray Train."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig

        from multimem_ray.distributed.private import run_training

        # One worker has nobody to talk to, and the backend of torch costs its start some seconds.
        backend = TorchConfig("cpu:gloo,cuda:nccl" if gpus else "gloo") if workers > 1 else None
        with _own_folder() as folder:
            # Bound to the function, the loop goes to the worker alone: the controller, which would
            # have to load all of torch to understand it, never sees it.
            run_training(
                partial(_in_worker, loop, ray.put(argument)),
                backend,
                ScalingConfig(
                    num_workers=workers,
                    use_gpu=gpus > 0,
                    # A sliver of a core: the decode tasks that feed the bank must always find one.
                    resources_per_worker={"CPU": 0.01, **({"GPU": gpus / workers} if gpus else {})},
                ),
                RunConfig(
                    # Ray Train would resume any run of this name, whatever its configuration; the
                    # checkpoints are ours, so each of its runs is a new one.
                    name=f"bank-{uuid.uuid4().hex[:12]}",
                    storage_path=str(folder),
                    failure_config=FailureConfig(max_failures=0),  # the trainer tries again itself
                ),
                has_dashboard=not is_private(self._address),
            )


def actor_retries() -> dict[str, Any]:
    """Bounded attempts: a shard that kills its process is dealt with after fewer of them."""
    return {"max_restarts": 256, "max_task_retries": 64}


def unwrapped(rows: Iterable[Any]) -> Iterator[Any]:
    """The rows; an error of ours comes out as itself, not wrapped by Ray."""
    try:
        yield from rows
    except Exception as error:
        own = own_error(error)
        if own is None:
            raise
        raise own from None


def own_error(error: BaseException | None) -> MultiMemError | None:
    """The error of ours that Ray wrapped, if there is one."""
    while error is not None:
        cause = getattr(error, "cause", None)
        for candidate in (error, cause):
            if isinstance(candidate, MultiMemError) and not hasattr(candidate, "cause"):
                return candidate
        error = cause if isinstance(cause, BaseException) else error.__cause__
    return None


def _in_worker(loop: Callable[[Any], None], reference: ray.ObjectRef[Any]) -> None:
    import ray.train

    loop(ray.get(reference))
    ray.train.report({})


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="multimem-train-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
