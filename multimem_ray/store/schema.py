"""The columns of ``scores/`` and ``errors/``: what is written, read and kept out of folder names.

A new score column is a line in :func:`score_schema`, its formula in
:mod:`multimem_ray.scoring.rows`, and a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pyarrow as pa

from multimem_ray.sample import Failure

SCORE, INDEX = "multimem", "index"
PAIR, ATTRIBUTION, CLIPMEM, UNSEEN = "pair_", "attribution_", "clipmem_", "unseen_"
"""Families: one column for each pair of modalities, or for each modality."""

VALUE = "partition_value"
"""Column of score rows on their way to a file; in the file, the folder's name stands for it."""

_RESERVED = (SCORE, "cmc", "gap", PAIR, ATTRIBUTION, CLIPMEM, UNSEEN)


def score_schema(
    modalities: Sequence[str], models: int, *, target: bool = False, partitioned: bool = False
) -> pa.Schema:
    """Schema of score rows.

    Args:
        modalities: Sorted names.
        models: Number of reference models, and of the target if there is one.
        target: Whether a target is audited.
        partitioned: Whether scores are partitioned by a field of the samples.
    """
    number, text = pa.float64(), pa.string()
    pairs = [f"{a}_{b}" for a, b in combinations(modalities, 2)]
    fields = [
        ("key", text),
        ("shard", text),
        (INDEX, pa.int64()),
        ("modalities", pa.list_(text)),
        ("label", text),
        ("group", text),
        ("split", text),
        (SCORE, number),
        ("multimem_normalized", number),
        ("multimem_se", number),
        ("multimem_pair_se", number),
        ("multimem_view_variance", number),
        ("n_in", pa.int32()),
        ("n_out", pa.int32()),
        ("cmc_in", number),
        ("cmc_out", number),
        *((name, number) for name in ("gap", "gap_se") if target),
        *((f"{PAIR}{pair}", number) for pair in pairs),
        *((f"{ATTRIBUTION}{name}", number) for name in modalities),
        *((f"{CLIPMEM}{pair}", number) for pair in pairs),
        *((f"{UNSEEN}{name}", number) for name in modalities),
        ("unseen_clipmem", number),
        ("attack_rmia", number),
        ("cmc", pa.list_(pa.float32(), models)),
        ("member", pa.list_(pa.bool_(), models)),
        *((name, text) for name in (VALUE,) if partitioned),
    ]
    return pa.schema(fields)


def is_score_column(name: str) -> bool:
    """Whether score files of some run have, or may come to have, a column of that name."""
    return name.startswith(_RESERVED) or name in score_schema((), 0, target=True).names


def error_schema() -> pa.Schema:
    """Schema of the files in ``errors/``."""
    text = pa.string()
    names = ("shard", "key", INDEX, "stage", "error", "detail")
    return pa.schema([(name, pa.int64() if name == INDEX else text) for name in names])


def error_rows(failures: Sequence[Failure]) -> pa.Table:
    """Failures as a table of ``errors/``."""
    schema = error_schema()
    columns = {name: [getattr(failure, name) for failure in failures] for name in schema.names}
    return pa.table(columns, schema)
