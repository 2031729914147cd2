"""A mitigated run beside the run of its references: what it remembers, and what it can do.

Samples are compared one by one, by a hash of their keys, and of the names of their shards where
keys repeat; the mean runs over those that both runs
have scored. See :mod:`multimem_ray.mitigation` for the three figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multimem_ray.arrow_files import read_parquet
from multimem_ray.design.key_list import hashed
from multimem_ray.design.shard_names import tail
from multimem_ray.errors import ConfigError
from multimem_ray.evaluation.evaluate import evaluate
from multimem_ray.evaluation.treated import (
    loss_curve,
    mean_interval,
    memory_curves,
    memory_intervals,
    treated_samples,
)
from multimem_ray.mitigation.choice import CHOSEN
from multimem_ray.mitigation.reference_scores import keys_repeat
from multimem_ray.own_files import read_own
from multimem_ray.progress import Progress
from multimem_ray.report.outcome import utility_intervals
from multimem_ray.report.tables import Table
from multimem_ray.report.text import number
from multimem_ray.results.arrays import floats
from multimem_ray.results.planted import read_truth
from multimem_ray.results.table import ScoreTable
from multimem_ray.run import Run, load_run
from multimem_ray.storage import Storage

Floats = NDArray[np.float64]
_NAMES = {"all": "all samples", "untouched": "trained on as before", "chosen": "chosen"}
_SCORES = ("multimem", "cmc_in", "cmc_out")


@dataclass(frozen=True)
class Memory:
    """Scores of a run's samples, by the hash of what they are known by.

    Attributes:
        ids: (N,) sorted.
        scores: ``multimem``, ``cmc_in`` and ``cmc_out``, (N,) each, NaN where undefined.
        planted: (N,) whether the sample is known to be misaligned.
        level: Mean consistency of the held-out set, over the models.
    """

    ids: NDArray[np.uint64]
    scores: Mapping[str, Floats]
    planted: NDArray[np.bool_]
    level: float

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of samples that are there."""
        return np.searchsorted(self.ids, ids)


def read_memory(
    output: str,
    storage: Storage,
    planted: str | None = None,
    *,
    by_shard: bool = False,
    parts: int = 1,
) -> Memory:
    """Read the scores of a run.

    Args:
        by_shard: Samples are known by shard and key, not by their key alone.
        parts: Parts of a shard's path that are its name.

    Raises:
        ConfigError: Nothing is scored.
        StorageError: A file cannot be read.
    """
    table = ScoreTable(output, storage)
    truth = read_truth(planted, storage, parts) if planted else {}
    ids, flags = [], []
    scores: dict[str, list[Floats]] = defaultdict(list)
    for batch in table.batches(["key", "shard", *_SCORES]):
        keys = batch["key"].to_pylist()
        shards = [tail(shard, parts) for shard in batch["shard"].to_pylist()]
        ids.append(hashed(keys, shards if by_shard else None))
        for name in _SCORES:
            scores[name].append(floats(batch[name]))
        places = zip(shards, keys, strict=True)
        flags.append(np.fromiter((place in truth for place in places), bool, batch.num_rows))
    if not ids:
        raise ConfigError(f"{output}: nothing is scored; run `multimem audit` on it first")
    every = np.concatenate(ids)
    order = np.argsort(every, kind="stable")
    models = table.document("held_out", "held_out.json")["models"].values()
    return Memory(
        every[order],
        {name: np.concatenate(parts)[order] for name, parts in scores.items()},
        np.concatenate(flags)[order],
        float(np.mean([model["cmc_mean"] for model in models])),
    )


def compare_memory(run: Run, references: str) -> dict[str, Any]:
    """Mean MultiMem with and without the mitigation.

    Returns:
        ``samples``; ``before`` and ``after`` of ``all`` samples, of those that are still trained
        on as they are (``untouched``), of the ``chosen`` ones, and of ``planted`` and ``aligned``
        ones where that is known; ``matched`` and ``change``, the relative change of ``all``;
        ``unmatched`` and ``corrected``, see :mod:`multimem_ray.mitigation`; ``intervals`` of these
        means; ``curves`` and ``treated``, see :mod:`multimem_ray.evaluation.treated`.

    Raises:
        ConfigError: The runs have no sample in common.
    """
    planted = run.config.data.planted
    by_shard, parts = keys_repeat(run, ScoreTable(references, run.storage)), run.shard_parts
    after, before = (
        read_memory(output, run.storage, planted, by_shard=by_shard, parts=parts)
        for output in (run.output, references)
    )
    common = np.intersect1d(after.ids, before.ids)
    a, b = after.rows(common), before.rows(common)
    known = ~np.isnan(after.scores["multimem"][a]) & ~np.isnan(before.scores["multimem"][b])
    if not known.any():
        raise ConfigError(
            f"{run.output} and {references} have scored no sample in common; a mitigation is "
            "compared on the same shards"
        )
    a, b, common = a[known], b[known], common[known]
    chosen = np.isin(common, chosen_ids(run))
    bad = before.planted[b]
    masks = {"all": np.ones(len(common), bool), "untouched": ~chosen, "chosen": chosen}
    if planted:
        masks |= {"planted": bad, "aligned": ~bad}
    new, old = after.scores["multimem"][a], before.scores["multimem"][b]
    crossed = after.scores["cmc_in"][a] - before.scores["cmc_out"][b]
    unmatched = float(crossed.mean())
    found = {
        "samples": len(common),
        "before": {name: _mean(old, mask) for name, mask in masks.items()},
        "after": {name: _mean(new, mask) for name, mask in masks.items()},
        "count": {name: int(mask.sum()) for name, mask in masks.items()},
        "matched": float(new.mean()),
        "unmatched": unmatched,
        "corrected": unmatched - (after.level - before.level),
        "gap": after.level - before.level,
        "intervals": memory_intervals(old, new, masks) | {"unmatched": mean_interval(crossed)},
        "curves": memory_curves(old, new),
        "treated": treated_samples(
            run, common[chosen], old[chosen], new[chosen], by_shard=by_shard, parts=parts
        ),
    }
    return found | {"change": float(new.mean() / old.mean() - 1.0)}


def chosen_ids(run: Run) -> NDArray[np.uint64]:
    """Samples that some model treated otherwise at the end of its training."""
    found = []
    for model_id in run.design.model_ids():
        url = run.model_folder(model_id).path(CHOSEN)
        if run.storage.exists(url):
            table = read_parquet(run.storage.read_bytes(url), url)
            found.append(table["id"].to_numpy())
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def utility(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Means over directions or modalities of each task, of an ``evaluation.json``.

    Returns:
        Of ``R@1``, ``R@5``, …, ``probe`` and ``zero_shot`` those that there are.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for row in evaluation["mean"]:
        values[row["task"]].append(row["mean"])
    return {task: float(np.mean(found)) for task, found in values.items()}


def overhead(run: Run) -> dict[str, float] | None:
    """Seconds that choosing took of those of training, over all models; None without a history."""
    total = spent = 0.0
    for model_id in run.design.model_ids():
        for line in run.model_folder(model_id).history():
            total += line["seconds"]
            spent += line.get("mitigation_s", 0.0)
    return {"training_s": total, "choosing_s": spent, "share": spent / total} if total else None


def _mean(values: Floats, mask: NDArray[np.bool_]) -> float | None:
    return float(values[mask].mean()) if mask.any() else None


def compared(run: Run, references: str, progress: Progress) -> dict[str, Any]:
    """A finished mitigated run beside its references; evaluates what is not evaluated yet."""
    before = Run.from_json(load_run(references, run.storage))
    old, new = evaluated(before, progress), evaluated(run, progress)
    return {
        "recipe": run.config.mitigation.model_dump(mode="json"),
        "memory": compare_memory(run, references),
        "utility": {"before": utility(old), "after": utility(new)},
        "utility_intervals": utility_intervals(old, new),
        "loss": {"before": loss_curve(before), "after": loss_curve(run)},
        "overhead": overhead(run),
    }


def evaluated(run: Run, progress: Progress) -> dict[str, Any]:
    """The evaluation of a run: as it was written, or made now."""
    url = run.path("evaluation.json")
    if run.storage.exists(url):
        return read_own(run.storage, url, "run `multimem evaluate` again", mean=list)
    return evaluate(run, progress)


def memory_table(memory: dict[str, Any]) -> Table:
    """Mean MultiMem before and after, with intervals."""
    rows, ends = [], memory["intervals"]
    for name, old in memory["before"].items():
        new = memory["after"][name]
        if old is not None and new is not None:
            # A relative change of what may be 0 says nothing.
            base = ends["before"][name]
            sure = base is not None and base["low"] > 0
            share = number(100 * (new / old - 1), 1) if sure else None
            told: list[Any] = [_NAMES.get(name, name), memory["count"][name]]
            for value, of in ((old, "before"), (new, "after"), (new - old, "difference")):
                told += [number(value), _ends(ends[of][name])]
            rows.append([*told, share])
    note = (
        f"Matched references: all models were trained by the recipe. Against models without it, "
        f"the mean would be {memory['unmatched']:.3f} ({_ends(ends['unmatched'])}), and "
        f"{memory['corrected']:.3f} less the gap of {memory['gap']:.3f} on samples that no model "
        "saw."
    )
    how = (
        "Intervals are of 95 %, by Student's t over samples, the same in both runs; that other "
        "models would differ as well is not in them."
    )
    columns = ["samples", "count", "before", "95 %", "after", "95 %", "change", "95 %", "in %"]
    return Table("Mean MultiMem", columns, rows, [note, how])


def utility_table(result: dict[str, Any]) -> Table:
    """Held-out figures before and after, in points of 100, with intervals."""
    rows = []
    for task, ends in result["utility_intervals"].items():
        old, new = (100 * result["utility"][of][task] for of in ("before", "after"))
        told: list[Any] = [task, ends["samples"]]
        for value, of in ((old, "before"), (new, "after"), (new - old, "difference")):
            told += [number(value, 1), _ends(ends[of], 100)]
        rows.append(told)
    note = (
        "Means over directions or modalities, and over models; on held-out samples. Intervals are "
        "of 95 %, by Wilson, and by Newcombe for the change, of one share of so many samples: "
        "that both runs are asked of the same samples is not counted in, so they are rather too "
        "wide."
    )
    columns = ["task", "samples", "before", "95 %", "after", "95 %", "points", "95 %"]
    return Table("Utility", columns, rows, note)


def _ends(interval: Mapping[str, float] | None, scale: float = 1.0) -> str | None:
    """An interval as text."""
    if interval is None:
        return None
    digits = 3 if scale == 1.0 else 1
    return " to ".join(number(scale * interval[end], digits) for end in ("low", "high"))
