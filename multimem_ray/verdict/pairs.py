"""What each block of models says of a sample: one of them did not see it, the others did."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def paired(cmc: Floats, member: Floats, blocks: int, size: int = 2) -> Floats:
    """``cmc_out`` and score of samples by each block of models that stand against one another.

    Args:
        cmc: (N, M) consistency per model, NaN where undefined.
        member: (N, M) 1 where the model trained on the sample, else 0.
        blocks: P, at most M / size.
        size: Models in a block, one after the other: 2 are a pair, 3 the folds of ``three_folds``.

    Returns:
        (N, P, 2); NaN where not exactly one model of a block left the sample out.
    """
    shape = (len(cmc), blocks, size)
    values = cmc[:, : blocks * size].reshape(shape)
    saw = member[:, : blocks * size].reshape(shape) == 1.0
    out = np.where(saw, 0.0, values).sum(axis=2)
    score = np.where(saw, values, 0.0).sum(axis=2) / (size - 1) - out
    found = np.stack([out, score], axis=2)
    found[saw.sum(axis=2) != size - 1] = np.nan
    return found
