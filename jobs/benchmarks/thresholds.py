"""What is expected of the benchmarks' figures: the bounds of ``thresholds.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from jobs.benchmarks.figures import Figures, shown

FILE = Path(__file__).with_name("thresholds.yaml")


class Threshold(BaseModel):
    """A bound of a median over the turns, at the default options of its benchmark.

    Attributes:
        direction: On which side of the bound the median lies.
        bound: In the unit of the column.
        machine: Where it is judged: on ``any`` machine, without a GPU (``cpu``), or with one.
        means: What a user would notice if it did not hold.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    direction: Literal["at least", "at most"]
    bound: float
    machine: Literal["any", "cpu", "gpu"]
    means: str

    def holds(self, value: float) -> bool:
        """Whether a value is on the right side."""
        return value >= self.bound if self.direction == "at least" else value <= self.bound


Thresholds = dict[str, dict[str, dict[str, Threshold]]]
"""Benchmark → row → column → threshold."""


def load_thresholds(path: Path = FILE) -> Thresholds:
    """All thresholds.

    Raises:
        pydantic.ValidationError: The file has a key or a value that is not one.
    """
    return TypeAdapter(Thresholds).validate_python(yaml.safe_load(path.read_text("utf-8")))


def shortfalls(
    benchmark: str, figures: Figures, thresholds: Thresholds, *, gpu: bool
) -> Iterator[str]:
    """What misses its bound, a sentence each; what was not measured is not judged."""
    for row, columns in thresholds.get(benchmark, {}).items():
        for column, threshold in columns.items():
            median = figures.median(row, column)
            here = threshold.machine in ("any", "gpu" if gpu else "cpu")
            if median is not None and here and not threshold.holds(median):
                bound = f"expected {threshold.direction} {shown(threshold.bound)}"
                reached = f"{benchmark}: {row}, {column}: {shown(median)}"
                yield f"{reached}, {bound} ({threshold.means})"
