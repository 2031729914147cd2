"""Epochs of training samples, as a worker would prepare them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from multimem_ray.run import Run
from multimem_ray.training.stream import shuffled


def epoch(run: Run, decoded: Sequence[Any], number: int) -> Iterator[tuple[Any, Any, float]]:
    """Decoded samples in the order of an epoch: (views, members, share of it done)."""
    for sample in shuffled(decoded, 100, 0, number):
        views = run.decoder.views(sample.key, sample.arrays, 0, number, "train")
        yield views, run.design.members([sample.group])[0].tolist(), 0.0


class SilentCounter:
    """Counts nothing."""

    def advance(self, task: str, amount: int = 1, **notes: Any) -> None:
        pass

    def look(self, task: str) -> tuple[int, dict[str, Any]]:
        return 0, {}

    def stop(self) -> None:
        pass

    def is_stopping(self) -> bool:
        return False
