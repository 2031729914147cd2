"""What a run does, for Prometheus: counters and gauges through ``ray.util.metrics``.

Ray exports them on every node's metrics port under these names with ``ray_`` before them;
``cluster/grafana.json`` is a dashboard of them.

    multimem_samples_total{stage, output}        samples trained on (visits) and scored
    multimem_seconds_total{stage, output}        decode, embed, train; sums over processes
    multimem_commits_total{output}               shards committed
    multimem_errors_total{output}                rows written to errors/
    multimem_loss{model, output}                 mean loss of a model's last epoch
    multimem_gpu_memory_bytes{stage, output}     most GPU memory that a process used
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from multimem_ray.distributed.session import on_ray

T = TypeVar("T")
Metric = Callable[[str, str, tuple[str, ...]], Any]
_FLUSH_S = 1.0


class Monitor:
    """Counts for one run, in one process of it.

    Args:
        output: The run's output, a tag of everything.
        counter: Makes a counter of a name, a description and tag keys; by default Ray's, and in a
            process without Ray one that nobody reads.
        gauge: Makes a gauge.
    """

    def __init__(
        self, output: str, counter: Metric | None = None, gauge: Metric | None = None
    ) -> None:
        if counter is None or gauge is None:
            counter, gauge = _ray_metrics() if on_ray() else (_Unread, _Unread)
        staged, plain = ("stage", "output"), ("output",)
        self._output = output
        self._samples = counter("multimem_samples", "samples trained on or scored", staged)
        self._seconds = counter("multimem_seconds", "seconds of work", staged)
        self._commits = counter("multimem_commits", "shards committed", plain)
        self._errors = counter("multimem_errors", "rows written to errors/", plain)
        self._loss = gauge("multimem_loss", "mean loss of the last epoch", ("model", "output"))
        self._memory = gauge("multimem_gpu_memory_bytes", "most GPU memory in use", staged)

    def samples(self, stage: str, count: int) -> None:
        """``count`` more samples went through a stage."""
        self._add(self._samples, count, stage=stage)

    def commit(self, errors: int) -> None:
        """A shard was committed, with so many rows in ``errors/``."""
        self._add(self._commits, 1)
        self._add(self._errors, errors)

    def loss(self, model: str, value: float | None) -> None:
        """Mean loss of a model's epoch."""
        if value is not None:
            self._loss.set(value, {"model": model, "output": self._output})

    def memory(self, stage: str, used: int) -> None:
        """Most GPU memory in use so far; 0 on a CPU."""
        self._memory.set(used, {"stage": stage, "output": self._output})

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count the time that the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(self._seconds, time.perf_counter() - started, stage=stage)

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """The items, counting the time that making them takes, every second or so."""
        iterator, spent = iter(items), 0.0
        try:
            while True:
                started = time.perf_counter()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    spent += time.perf_counter() - started
                if spent > _FLUSH_S:
                    self._add(self._seconds, spent, stage=stage)
                    spent = 0.0
                yield item
        finally:
            self._add(self._seconds, spent, stage=stage)

    def _add(self, counter: Any, amount: float, **tags: str) -> None:
        if amount > 0:  # Ray's counters refuse to stand still
            counter.inc(amount, {**tags, "output": self._output})


def _ray_metrics() -> tuple[Metric, Metric]:
    from ray.util import metrics

    return metrics.Counter, metrics.Gauge


class _Unread:
    """Stands for a metric where nobody collects any."""

    def __init__(self, *_: object) -> None:
        pass

    def inc(self, value: float, tags: dict[str, str]) -> None:
        pass

    def set(self, value: float, tags: dict[str, str]) -> None:
        pass


def gpu_memory() -> int:
    """Most bytes of GPU memory that this process used so far; 0 without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
