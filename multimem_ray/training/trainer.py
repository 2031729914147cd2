"""Packs reference models into banks and runs each bank as one Ray Train run.

Starting a Ray Train run costs seconds and about a gigabyte whatever its model, and reading and
decoding cost the same for one model as for eight: hence banks. A model that is done (its folder
says so) costs nothing; one that was interrupted goes on from its checkpoint, in whichever bank
it is packed this time.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from multimem_ray.config import TrainResources
from multimem_ray.distributed.capacity import node_cores, wait_for_capacity
from multimem_ray.distributed.counter import ProgressActor
from multimem_ray.distributed.session import (
    cluster_cpus,
    cluster_gpus,
    is_private,
    use_ray_data_here,
)
from multimem_ray.errors import MultiMemError, StorageError, TrainingError
from multimem_ray.progress import Progress, finished_with_progress
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.training.loggers import require_loggers
from multimem_ray.training.memory import model_memory, too_large
from multimem_ray.training.packing import BankPacking, pack
from multimem_ray.training.stream import decodes_on_the_cluster
from multimem_ray.training.worker import BankTask, cache_folder, train_bank

logger = logging.getLogger(__name__)

RETRIES = 3
"""Attempts after the first of a bank that comes no further."""


def train(run: Run, shards: Sequence[FileInfo], progress: Progress) -> list[str]:
    """Train every reference model that is not done yet; Ray must be running.

    Returns:
        The ids of the models that were trained now.

    Raises:
        ConfigError: A tracker is not there.
        TrainingError: A bank failed; names its models and the cause. What was finished stays.
    """
    todo = [m for m in run.design.model_ids() if not run.is_trained(m)]
    if not todo:
        return []
    require_loggers(run.config.training.trackers)
    trained_on = [shard for shard in shards if run.trains_on(shard.url)]
    packing = layout(run, len(todo), progress)
    packed = packing.banks(todo)
    progress.say(
        f"training {len(todo)} reference models in {len(packed)} "
        f"bank{'s' if len(packed) > 1 else ''}"
        + (f", {packing.at_once} at once" if 1 < packing.at_once < len(packed) else "")
        + f", {run.config.training.epochs} epochs"
        + (f", on {len(trained_on)} of {len(shards)} shards" if trained_on != list(shards) else "")
    )
    if decodes_on_the_cluster(run, sum(shard.size for shard in trained_on)):
        use_ray_data_here()
    board = ProgressActor.create()
    shared = ray.put(trained_on)
    total = len(todo) * run.config.training.epochs
    # Threads of this process, not Ray tasks: fit() only waits, and a task would be one more
    # process that loads all of torch first.
    with (
        progress.task("train", total, unit="epochs") as shown,
        ThreadPoolExecutor(packing.at_once) as pool,
    ):
        over = threading.Event()
        running = [pool.submit(_train, run, shared, ids, packing, board, over) for ids in packed]
        try:
            for done in finished_with_progress(running, board, "train", shown):
                _raise_cause(done)
        except BaseException:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _drop_cache(run)
    return todo


def layout(run: Run, models: int, progress: Progress) -> BankPacking:
    """How models are packed on the cluster that is there now.

    Where there is no room for a bank yet, nodes are asked for, and those that come are counted.

    Raises:
        ConfigError, ClusterError: See :func:`multimem_ray.distributed.capacity.wait_for_capacity`.
    """
    wanted = run.config.resources.train
    workers = wanted.workers_per_bank
    bundle = {"GPU": wanted.gpus / workers} if wanted.gpus else {"CPU": 1.0}
    banks = wanted.concurrent_banks
    if banks == "auto":
        banks = models if wanted.gpus else 1
    key = "resources.train.gpus" if wanted.gpus else "resources.train"
    least = workers if wanted.gpus else 1
    wait_for_capacity(run.config, bundle, key, progress, ask=banks * workers, least=least)
    gpus, fit = cluster_gpus(), None
    if wanted.gpus and gpus and wanted.models_per_bank == "auto":
        memory, device = model_memory(run), _gpu_bytes(wanted)
        if device is not None:
            fit = memory.fit(device, workers)
            if not fit:
                logger.warning(too_large(memory, device, workers))
    cores = node_cores(bundle) * workers
    return pack(wanted, models, cluster_cpus(), gpus, fit, cores)


def _gpu_bytes(wanted: TrainResources) -> float | None:
    """Memory of a GPU of the cluster, or of the part of one that a worker gets.

    None if what the cluster calls a GPU is none that torch can use.
    """
    part = min(1.0, wanted.gpus / wanted.workers_per_bank)
    ask = ray.remote(num_cpus=0, num_gpus=part, max_retries=2)(_total_memory)
    found = ray.get(ask.remote())
    return None if found is None else part * float(found)


def _total_memory() -> int | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def _train(
    run: Run,
    shards: ray.ObjectRef[Any],
    model_ids: list[str],
    packing: BankPacking,
    board: ProgressActor,
    over: threading.Event,
) -> None:
    """Train a bank, however often its workers are lost, as long as it comes further in between.

    Nodes that come and go may take a bank with them any number of times; one that dies again and
    again without a step more in its checkpoint has a fault of its own. What we raise ourselves
    (training that diverged, no sample) would be the same again; a store that failed would not.
    """
    failures, reached = 0, -1
    while True:
        try:
            return _fit(run, shards, model_ids, packing, board)
        except Exception as error:
            cause = _root(error)
            final = isinstance(cause, MultiMemError) and not isinstance(cause, StorageError)
            if final or over.is_set():
                raise
            now = _steps(run, model_ids, reached)
            failures = failures + 1 if now <= reached else 1
            reached = max(reached, now)
            if failures > RETRIES:
                raise
            logger.warning(
                "a bank of models %s … failed (%s: %s); it goes on from its checkpoint",
                model_ids[0],
                type(cause).__name__,
                str(cause).partition("\n")[0],
            )


def _steps(run: Run, model_ids: Sequence[str], reached: int) -> int:
    """Steps that a bank's models have kept, all together; as before where that cannot be told."""
    try:
        return sum(run.model_folder(model_id).steps() for model_id in model_ids)
    except MultiMemError as error:
        logger.warning("%s", error)
        return reached


def _fit(
    run: Run,
    shards: ray.ObjectRef[Any],
    model_ids: list[str],
    packing: BankPacking,
    board: ProgressActor,
) -> None:
    wanted = run.config.resources.train
    workers = wanted.workers_per_bank
    decoders = max(1, packing.cores // workers)
    task = BankTask(run, model_ids, packing.threads, decoders, board)
    # One worker has nobody to talk to, and the backend of torch costs its start some seconds.
    backend = TorchConfig("cpu:gloo,cuda:nccl" if wanted.gpus else "gloo") if workers > 1 else None
    gpu = {"GPU": wanted.gpus / workers} if wanted.gpus else {}
    with _own_folder() as folder:
        # Bound to the function, the task goes to the worker alone: the controller, which would
        # have to load all of torch to understand it, never sees it.
        trainer = _InOwnRay if is_private(run.config) else DataParallelTrainer
        trainer(
            partial(train_bank, task, shards),
            backend_config=backend,
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=wanted.gpus > 0,
                # A sliver of a core: the decode tasks that feed the bank must always find one.
                resources_per_worker={"CPU": 0.01, **gpu},
            ),
            run_config=RunConfig(
                # Ray Train would resume any run of this name, whatever its configuration; the
                # checkpoints are ours, so each of its runs is a new one.
                name=f"bank-{uuid.uuid4().hex[:12]}",
                storage_path=str(folder),
                failure_config=FailureConfig(max_failures=0),  # see _train
            ),
        ).fit()


class _InOwnRay(DataParallelTrainer):
    """Ray Train without the actor that removes placement groups of drivers that died.

    It asks Ray's dashboard whether the driver lives. Our private Ray has no dashboard, so each
    question takes ten seconds, and the end of every training waits for one; and it ends with its
    driver anyway.
    """

    def _create_default_callbacks(self) -> list[Any]:
        found: list[Any] = super()._create_default_callbacks()
        return [one for one in found if not isinstance(one, PlacementGroupCleanerCallback)]


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="multimem-train-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _raise_cause(done: Future[None]) -> None:
    error = done.exception()
    if error is None:
        return
    cause = _root(error)
    if isinstance(cause, MultiMemError):
        raise TrainingError(str(cause)) from error
    raise TrainingError(f"a bank failed: {type(cause).__name__}: {cause}") from error


def _root(error: BaseException) -> BaseException:
    """The error of the worker, below the wrappings of Ray and Ray Train."""
    while True:
        inner: Any = getattr(error, "worker_failures", None)
        inner = _first_cause(inner) if inner else getattr(error, "cause", None)
        inner = inner or error.__cause__
        if not isinstance(inner, BaseException) or inner is error:
            return error
        error = inner


def _first_cause(failures: Mapping[int, BaseException]) -> BaseException:
    """Of the failures of several ranks, ours rather than what the others lost by it."""
    ours = (e for e in failures.values() if isinstance(_root(e), MultiMemError))
    return next(ours, next(iter(failures.values())))


def _drop_cache(run: Run) -> None:
    shutil.rmtree(cache_folder(run), ignore_errors=True)
