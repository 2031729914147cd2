"""A training sample on its way to the models of a bank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from multimem_ray.modalities.base import Array

Views = Mapping[str, Array]


class TrainingSample(NamedTuple):
    """One sample.

    Attributes:
        views: Modality → view; None where another rank has the sample.
        members: Which models of the run train on it.
        share: Share of the epoch that is done with it.
        key: Its key; a mitigation knows it by that.
        stronger: Makes stronger views; None if none are wanted.
    """

    views: Views | None
    members: Sequence[bool]
    share: float
    key: str = ""
    stronger: Callable[[], Views] | None = None
