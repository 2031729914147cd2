"""The columns of a file in ``errors/``."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from multimem_ray.sample import Failure


def error_schema() -> pa.Schema:
    """Schema of the files in ``errors/``."""
    return pa.schema(
        [
            ("shard", pa.string()),
            ("key", pa.string()),
            ("index", pa.int64()),
            ("stage", pa.string()),
            ("error", pa.string()),
            ("detail", pa.string()),
        ]
    )


def error_rows(failures: Sequence[Failure]) -> pa.Table:
    """Failures as a table of ``errors/``."""
    columns = {
        name: [getattr(failure, name) for failure in failures] for name in error_schema().names
    }
    return pa.table(columns, error_schema())
