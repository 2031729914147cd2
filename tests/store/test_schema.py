"""The columns of scores and errors, in one place for whoever writes, reads or names folders."""

from __future__ import annotations

import pyarrow as pa
import pytest

from multimem_ray.sample import Failure
from multimem_ray.store.partitioning import hive_key
from multimem_ray.store.schema import VALUE, error_rows, is_score_column, score_schema

NAMES = ("audio", "image", "text")


def test_columns_follow_from_the_run() -> None:
    plain = score_schema(NAMES, 4)
    assert [n for n in plain.names if n.startswith("pair_")] == [
        "pair_audio_image", "pair_audio_text", "pair_image_text",
    ]  # fmt: skip
    assert plain.field("cmc").type == pa.list_(pa.float32(), 4)
    more = set(score_schema(NAMES, 4, target=True, partitioned=True).names) - set(plain.names)
    assert more == {"gap", "gap_se", VALUE}


@pytest.mark.parametrize("target", [False, True])
def test_no_folder_is_named_like_a_column(target: bool) -> None:
    """Or DuckDB and Polars would take the one for the other."""
    for column in score_schema(NAMES, 4, target=target).names:
        assert is_score_column(column)
        assert hive_key(f"json.{column}") == f"partition_{column}"
    assert hive_key("json.source") == "source"
    assert hive_key("json.unseen") == "unseen"


def test_failures_become_rows() -> None:
    failure = Failure("a.tar", None, None, "read", "truncated", "cut")
    (row,) = error_rows([failure]).to_pylist()
    assert row == {
        "shard": "a.tar", "key": None, "index": None,
        "stage": "read", "error": "truncated", "detail": "cut",
    }  # fmt: skip
    assert error_rows([]).num_rows == 0
