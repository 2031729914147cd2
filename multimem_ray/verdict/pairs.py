"""What each pair of models says of a sample: one of them saw it, the other did not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def paired(cmc: Floats, member: Floats, pairs: int) -> Floats:
    """``cmc_out`` and score of samples by each pair of models 2p and 2p + 1.

    Args:
        cmc: (N, M) consistency per model, NaN where undefined.
        member: (N, M) 1 where the model trained on the sample, else 0.
        pairs: P, at most M / 2.

    Returns:
        (N, P, 2); NaN where both models of a pair saw the sample, or neither did.
    """
    even, odd = cmc[:, 0 : 2 * pairs : 2], cmc[:, 1 : 2 * pairs : 2]
    first, second = member[:, 0 : 2 * pairs : 2], member[:, 1 : 2 * pairs : 2]
    saw = first == 1.0
    values = np.stack([np.where(saw, odd, even), np.where(saw, even - odd, odd - even)], axis=2)
    values[first == second] = np.nan
    return values
