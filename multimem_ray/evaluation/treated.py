"""What a mitigation's page shows besides means: intervals, curves and treated samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from multimem_ray.design.key_list import hashed
from multimem_ray.design.shard_names import tail
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run

Floats = NDArray[np.float64]
SHOWN = 12
QUANTILES = np.linspace(0.01, 0.99, 50)


def mean_interval(values: Floats) -> dict[str, float] | None:
    """95 % interval of a mean over samples by Student's t, for these models; None below two."""
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    half = float(stdtrit(len(values) - 1, 0.975)) * error
    return {"low": mean - half, "high": mean + half}


def memory_intervals(
    old: Floats, new: Floats, masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, dict[str, float] | None]]:
    """Intervals of ``before``, ``after`` and the paired ``difference``, by group of samples."""
    parts = {"before": old, "after": new, "difference": new - old}
    return {
        name: {group: mean_interval(values[mask]) for group, mask in masks.items()}
        for name, values in parts.items()
    }


def memory_curves(old: Floats, new: Floats) -> dict[str, list[list[float]]]:
    """MultiMem ``before`` and ``after`` at shares of the samples: points (share, score)."""
    return {
        name: np.stack([QUANTILES, np.quantile(of, QUANTILES)], axis=1).tolist()
        for name, of in (("before", old), ("after", new))
    }


def loss_curve(run: Run) -> list[list[float]]:
    """Points (epoch, loss), the mean over the models that tell of the epoch."""
    losses: dict[int, list[float]] = defaultdict(list)
    for model_id in run.design.model_ids():
        for line in run.model_folder(model_id).history():
            if line.get("loss") is not None:
                losses[int(line["epoch"])].append(float(line["loss"]))
    return [[epoch, float(np.mean(of))] for epoch, of in sorted(losses.items())]


def treated_samples(
    run: Run, ids: NDArray[np.uint64], old: Floats, new: Floats, *, by_shard: bool, parts: int
) -> list[dict[str, Any]]:
    """The treated samples that were memorized most before: ``key``, ``shard``, scores.

    Args:
        ids: (N,) hashes of the treated samples, with their scores (N,) of both runs.
        by_shard: Samples are known by shard and key, not by their key alone.
        parts: Parts of a shard's path that are its name.
    """
    order = np.argsort(-old, kind="stable")[:SHOWN]
    place = {int(ids[row]): row for row in order}
    found: dict[int, dict[str, Any]] = {}
    for batch in ScoreTable(run.output, run.storage).batches(["key", "shard"]):
        keys, shards = batch["key"].to_pylist(), batch["shard"].to_pylist()
        names = [tail(shard, parts) for shard in shards] if by_shard else None
        own = hashed(keys, names)
        for row in np.flatnonzero(np.isin(own, ids[order])):
            at = place[int(own[row])]
            sample = {"key": keys[row], "shard": shards[row]}
            found[at] = sample | {"before": float(old[at]), "after": float(new[at])}
    return [found[row] for row in order if row in found]
