"""What is used of Ray beyond its public interface, all of it; a Ray without it costs a convenience.

Without ``DataParallelTrainer``, ``TorchTrainer`` takes its place: a bank of one worker then waits
some seconds for torch's process group, which it has no use for. Without
``PlacementGroupCleanerCallback``, or the method that adds it, a training in a private Ray ends
about ten seconds later. Without ``ENABLE_RAY_CLUSTER`` a private Ray listens on all interfaces.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextlib.contextmanager
def on_loopback() -> Iterator[None]:
    """The processes of a Ray that starts in this block listen on the loopback interface alone.

    That is what Ray does where it supports no clusters; on Linux it would listen on every
    interface, to whoever reaches this machine.
    """
    before = os.environ.get(_CLUSTERS)
    os.environ[_CLUSTERS] = "0"
    constants: Any = None
    try:
        # Read from the environment when Ray was imported, which is over.
        from ray._private import ray_constants

        clusters, constants = ray_constants.ENABLE_RAY_CLUSTER, ray_constants
        constants.ENABLE_RAY_CLUSTER = False
    except (ImportError, AttributeError):
        clusters = None
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CLUSTERS]
        else:
            os.environ[_CLUSTERS] = before
        if constants is not None:
            constants.ENABLE_RAY_CLUSTER = clusters


def run_training(
    loop: Callable[[], None],
    backend: TorchConfig | None,
    scaling: ScalingConfig,
    run_config: RunConfig,
    *,
    has_dashboard: bool,
) -> None:
    """Run a loop on the workers of one Ray Train run, and wait for its end.

    Args:
        loop: What each worker does.
        backend: How the workers talk to each other; None if there is but one.
        scaling: Number and resources of the workers.
        run_config: Name, folder and retries.
        has_dashboard: Whether this Ray has one.

    Raises:
        Exception: What Ray Train makes of what a worker raised.
    """
    from ray.train.torch import TorchTrainer

    common: dict[str, Any] = {"scaling_config": scaling, "run_config": run_config}
    trainer = _trainer_class(has_dashboard)
    if trainer is None:
        TorchTrainer(loop, torch_config=backend, **common).fit()
    else:
        trainer(loop, backend_config=backend, **common).fit()


def _trainer_class(has_dashboard: bool) -> Callable[..., Any] | None:
    """``DataParallelTrainer`` of Ray Train, or None if this Ray has none.

    Without a dashboard, it comes without the actor that removes placement groups of drivers that
    died. That one asks Ray's dashboard whether the driver lives: in a Ray that has none, each
    question takes ten seconds, and the end of every training waits for one. And a private Ray ends
    with its driver anyway.
    """
    try:
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    except (ImportError, AttributeError):
        return None
    try:
        from ray.train.v2._internal.callbacks import placement_group_callback as module

        cleaner: Any = module.PlacementGroupCleanerCallback
    except (ImportError, AttributeError):
        return DataParallelTrainer
    if has_dashboard:
        return DataParallelTrainer

    class WithoutCleaner(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [callback for callback in callbacks if not isinstance(callback, cleaner)]

    return WithoutCleaner
