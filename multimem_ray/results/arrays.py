"""Columns of Arrow as arrays of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]


def floats(column: Any) -> Floats:
    """A numeric Arrow column as float64, NaN where null."""
    values = pc.fill_null(pc.cast(column, pa.float64()), np.nan)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def lists(column: Any) -> Floats:
    """An Arrow column of equally long lists as (N, M) float64, NaN where null."""
    lengths = pc.max(pc.list_value_length(column)).as_py() or 0
    if not lengths:
        return np.empty((len(column), 0))
    whole = pc.equal(pc.fill_null(pc.list_value_length(column), 0), lengths)
    result = np.full((len(column), lengths), np.nan)
    flat = floats(pc.list_flatten(column.filter(whole)))
    result[np.asarray(whole.to_numpy(zero_copy_only=False), bool)] = flat.reshape(-1, lengths)
    return result
