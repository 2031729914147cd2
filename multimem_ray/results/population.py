"""The held-out set of a run under its models, as scoring kept it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors.numpy import load

from multimem_ray.metric.attack import Population

if TYPE_CHECKING:
    from multimem_ray.results.table import ScoreTable


def stored_population(table: ScoreTable) -> Population | None:
    """The held-out set of a run under its models; None where an earlier version summed it up."""
    url = table.storage.join(table.output, "held_out", "means.safetensors")
    if not table.storage.exists(url):
        return None
    return Population.from_arrays(load(table.storage.read_bytes(url)))
