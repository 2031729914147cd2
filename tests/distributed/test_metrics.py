"""What is counted for Prometheus, with counters that remember; Ray's own are tested in a job."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar

import pytest

from multimem_ray.distributed.metrics import Monitor


class Remembers:
    """Takes the place of ``ray.util.metrics.Counter`` and ``Gauge``."""

    values: ClassVar[dict[tuple[str, ...], float]] = defaultdict(float)

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        self.name, self.tag_keys = name, tag_keys

    def inc(self, amount: float, tags: dict[str, str]) -> None:
        assert amount > 0
        self.values[self._place(tags)] += amount

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self._place(tags)] = value

    def _place(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(self.tag_keys)
        return (self.name, *(tags[key] for key in self.tag_keys))


@pytest.fixture
def monitor() -> Monitor:
    Remembers.values.clear()
    return Monitor("out", Remembers, Remembers)


def test_counts(monitor: Monitor) -> None:
    monitor.samples("score", 5)
    monitor.samples("score", 7)
    monitor.samples("train", 0)
    monitor.commit(errors=2)
    monitor.commit(errors=0)
    monitor.loss("000", 0.5)
    monitor.loss("001", None)
    monitor.memory("score", 10)
    assert Remembers.values == {
        ("multimem_samples", "score", "out"): 12,
        ("multimem_commits", "out"): 2,
        ("multimem_errors", "out"): 2,
        ("multimem_loss", "000", "out"): 0.5,
        ("multimem_gpu_memory_bytes", "score", "out"): 10,
    }


def test_time_is_that_of_the_producer_alone(monitor: Monitor) -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    for _ in monitor.timed("decode", slow()):
        time.sleep(0.1)
    spent = Remembers.values["multimem_seconds", "decode", "out"]
    assert 0.06 <= spent < 0.2


def test_time_of_a_failure_counts_too(monitor: Monitor) -> None:
    def fails() -> None:
        time.sleep(0.01)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), monitor.timing("embed"):
        fails()
    assert Remembers.values["multimem_seconds", "embed", "out"] >= 0.01
