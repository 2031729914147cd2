"""Packs reference models into banks and trains each: on Ray, as a run of Ray Train.

Starting such a run costs seconds and about a gigabyte whatever its model, and reading and
decoding cost the same for one model as for eight: hence banks. A model that is done (its folder
says so) costs nothing; one that was interrupted goes on from its checkpoint, in whichever bank
it is packed this time.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from multimem_ray.config import TrainResources
from multimem_ray.distributed.executor import Executor, node_cores, total
from multimem_ray.distributed.session import use_ray_data_here
from multimem_ray.errors import MultiMemError, StorageError, TrainingError
from multimem_ray.interrupts import KEEPING_S, deferred
from multimem_ray.models.checkpoint import ModelFolder
from multimem_ray.progress import Counter, Progress, Shown, finished_with_progress
from multimem_ray.run import Run
from multimem_ray.storage import FileInfo
from multimem_ray.training.loggers import require_loggers
from multimem_ray.training.memory import BankPacking, model_memory, pack, too_large
from multimem_ray.training.stream import decodes_on_the_cluster
from multimem_ray.training.worker import cache_folder, train_bank

logger = logging.getLogger(__name__)

RETRIES = 3
"""Attempts after the first of a bank that comes no further."""


def train(
    run: Run, shards: Sequence[FileInfo], progress: Progress, executor: Executor
) -> list[str]:
    """Train every reference model that is not done yet, within a session of the executor.

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
    training = run.config.training
    packing, epochs = layout(run, len(todo), progress, executor), training.trained_epochs
    banks = packing.banks(todo)
    progress.say(
        f"training {len(todo)} reference models in {len(banks)} "
        f"bank{'s' if len(banks) > 1 else ''}"
        + (f", {packing.at_once} at once" if 1 < packing.at_once < len(banks) else "")
        + f", {epochs} epochs"
        + (f" of a schedule of {training.epochs}" if epochs < training.epochs else "")
        + (f", on {len(trained_on)} of {len(shards)} shards" if trained_on != list(shards) else "")
    )
    with progress.task("train", len(todo) * epochs, unit="epochs") as shown:
        counter, over = executor.counter(shown, "train"), threading.Event()
        resources = run.config.resources.train
        decoders = max(1, packing.cores // resources.workers_per_bank)

        def train_one(model_ids: Sequence[str]) -> None:
            loop = partial(train_bank, run, model_ids, packing.threads, decoders, counter)
            fit = partial(
                executor.fit,
                loop,
                trained_on,
                workers=resources.workers_per_bank,
                gpus=resources.gpus,
            )
            folders = [run.model_folder(model_id) for model_id in model_ids]
            _train(fit, folders, over, distributed=executor.distributed)

        if executor.distributed:
            if decodes_on_the_cluster(resources.decode, sum(shard.size for shard in trained_on)):
                use_ray_data_here()
            _side_by_side(train_one, banks, packing.at_once, counter, shown, over)
        else:
            # In this thread, so that an interrupt reaches the training, at its next checkpoint.
            with deferred():
                for model_ids in banks:
                    try:
                        train_one(model_ids)
                    except Exception as error:
                        raise _bank_error(error) from error
    shutil.rmtree(cache_folder(run), ignore_errors=True)
    return todo


def layout(run: Run, models: int, progress: Progress, executor: Executor) -> BankPacking:
    """How models are packed on the nodes that are there now.

    Where there is no room for a bank yet, nodes are asked for, and those that come are counted.

    Raises:
        ConfigError, ClusterError: See :meth:`Executor.require`.
    """
    resources = run.config.resources.train
    workers = resources.workers_per_bank
    bundle = {"GPU": resources.gpus / workers} if resources.gpus else {"CPU": 1.0}
    banks = resources.concurrent_banks
    if banks == "auto":
        banks = models if resources.gpus else 1
    key = "resources.train.gpus" if resources.gpus else "resources.train"
    least = workers if resources.gpus else 1
    executor.require(bundle, key, progress, ask=banks * workers, least=least)
    nodes = executor.nodes()
    gpus, fit = total(nodes, "GPU"), None
    if resources.gpus and gpus and resources.models_per_bank == "auto":
        memory, device = model_memory(run), _gpu_bytes(resources, executor)
        if device is not None:
            fit = memory.fit(device, workers)
            if not fit:
                logger.warning(too_large(memory, device, workers))
    cores = node_cores(nodes, bundle) * workers
    return pack(resources, models, max(1, total(nodes, "CPU")), gpus, fit, cores)


def _gpu_bytes(resources: TrainResources, executor: Executor) -> float | None:
    """Memory of a GPU of the cluster, or of the part of one that a worker gets.

    None if what the cluster calls a GPU is none that torch can use.
    """
    part = min(1.0, resources.gpus / resources.workers_per_bank)
    size = executor.call(_total_memory, part)
    return None if size is None else part * float(size)


def _total_memory() -> int | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def _side_by_side(
    train_one: Callable[[Sequence[str]], None],
    banks: Sequence[Sequence[str]],
    at_once: int,
    counter: Counter,
    shown: Shown,
    over: threading.Event,
) -> None:
    """Train banks on the cluster; at the first that fails, no other is begun or tried again.

    Those that are under way finish. An interrupt has them keep where they are, for some seconds.
    """
    # Threads of this process, not Ray tasks: they only wait, and a task would be one more process
    # that loads all of torch first. Nobody waits for them at an interrupt: they end with Ray.
    pool = ThreadPoolExecutor(at_once)
    running = [pool.submit(train_one, model_ids) for model_ids in banks]
    try:
        for done in finished_with_progress(running, counter, "train", shown):
            done.result()
    except BaseException as error:
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # One that was cancelled before it began is never told to be done.
        under_way = [bank for bank in running if not bank.cancelled()]
        if isinstance(error, Exception):
            wait(under_way)
            raise _bank_error(error) from error
        counter.stop()
        wait(under_way, KEEPING_S)
        raise
    pool.shutdown()


def _train(
    fit: Callable[[], None],
    folders: Sequence[ModelFolder],
    over: threading.Event,
    *,
    distributed: bool,
) -> None:
    """Train a bank, however often its workers are lost, as long as it comes further in between.

    Nodes that come and go may take a bank with them any number of times; one that dies again and
    again without a step more in its checkpoint has a fault of its own. What we raise ourselves
    (training that diverged, no sample) would be the same again, and so would anything in a process
    that is alone; a store that failed would not.
    """
    failures, reached = 0, -1
    while True:
        try:
            return fit()
        except Exception as error:
            cause = _root(error)
            same = not distributed or isinstance(cause, MultiMemError)
            if (same and not isinstance(cause, StorageError)) or over.is_set():
                raise
            steps = _steps(folders, reached)
            failures = failures + 1 if steps <= reached else 1
            reached = max(reached, steps)
            if failures > RETRIES:
                raise
            logger.warning(
                "a bank of models %s … failed (%s: %s); it goes on from its checkpoint",
                folders[0].url.rpartition("/")[2],
                type(cause).__name__,
                str(cause).partition("\n")[0],
            )


def _steps(folders: Sequence[ModelFolder], reached: int) -> int:
    """Steps that a bank's models have kept, all together; as before where that cannot be told."""
    try:
        return sum(folder.steps() for folder in folders)
    except MultiMemError as error:
        logger.warning("%s", error)
        return reached


def _bank_error(error: BaseException) -> MultiMemError:
    cause = _root(error)
    if isinstance(cause, MultiMemError):
        return TrainingError(str(cause))
    return TrainingError(f"a bank failed: {type(cause).__name__}: {cause}")


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
