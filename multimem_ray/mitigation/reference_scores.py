"""What references think of the training samples: read once, by every process that trains.

The driver writes it once for a run (see :mod:`multimem_ray.mitigation.prepare`), from the
scores of an earlier audit: nothing is embedded again. A sample is known by a 64-bit hash of its
key, so a row is some forty bytes; samples that share a key are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multimem_ray.arrow_files import read_parquet
from multimem_ray.config import MitigationConfig
from multimem_ray.design.hashing import seed_of
from multimem_ray.run import Run

Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]

PLACE = ("mitigation", "judged.parquet")


def schema(models: int) -> pa.Schema:
    """Columns of the file: hash of the key, scores, the modality that fits least, membership."""
    return pa.schema(
        [
            ("id", pa.uint64()),
            ("multimem", pa.float64()),
            ("clipmem", pa.float64()),
            ("cmc_out", pa.float64()),
            ("unseen_clipmem", pa.float64()),
            ("misfit", pa.int8()),
            ("listed", pa.bool_()),
            ("member", pa.list_(pa.bool_(), models)),
        ]
    )


@dataclass(frozen=True)
class ReferenceScores:
    """Samples in the order of their hashes.

    Attributes:
        ids: (N,) sorted.
        scores: Column → (N,), NaN where undefined.
        misfit: (N,) place of the modality that fits least among the run's; -1 if not known.
        listed: (N,) whether the user's list has it.
        member: (N, M) which models of this run train on it.
    """

    ids: Hashes
    scores: dict[str, Floats]
    misfit: NDArray[np.int8]
    listed: NDArray[np.bool_]
    member: NDArray[np.bool_]

    @classmethod
    def load(cls, run: Run) -> ReferenceScores:
        """Read the file of a run."""
        table = read_parquet(run.storage.read_bytes(run.path(*PLACE)), run.path(*PLACE))
        ids = table["id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        names = ("multimem", "clipmem", "cmc_out", "unseen_clipmem")
        models = len(run.design.model_ids())
        flat = table["member"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(
            ids[order],
            {name: _floats(table[name])[order] for name in names},
            table["misfit"].to_numpy()[order],
            table["listed"].to_numpy()[order].astype(bool),
            flat.astype(bool).reshape(-1, models)[order],
        )

    def rows(self, ids: Hashes) -> NDArray[np.int64]:
        """(K,) rows of these samples; -1 for those that are not there."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def standing(self, config: MitigationConfig, number: int, epoch: int) -> Floats:
        """(N,) suspicion of each member of a model, from what is known without running it.

        NaN for samples that the model does not train on, or that have no such score.
        """
        if config.by == "random":
            # Not a hash of the key, which also decides about membership.
            found = _noise(self.ids, seed_of(config.seed, "mitigation", number, epoch))
        elif config.by == "list":
            found = np.where(self.listed, 0.0, np.nan)
        elif config.by == "cmc_out":
            found = -self.scores["cmc_out"]
        else:
            found = self.scores[config.by]
        return np.where(self.member[:, number], found, np.nan)


def _noise(ids: Hashes, seed: int) -> Floats:
    """A number in [0, 1) for each id: splitmix64 (Steele et al. 2014) of it and the seed."""
    with np.errstate(over="ignore"):
        z = ids + np.uint64(seed % (1 << 64))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _floats(column: Any) -> Floats:
    found: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return found
