"""A file belongs to a commit if its footer says so."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.arrow_files import read_footer
from multimem_ray.errors import StorageError
from multimem_ray.store.files import score_file
from multimem_ray.store.footers import FooterCheck
from multimem_ray.store.markers import Commit
from multimem_ray.store.names import shard_id

URL, RUN = "/data/a.tar", "f" * 16


def footer(rows: int, shard: str = URL, run: str = RUN) -> pq.FileMetaData:
    numbers = [float(n) for n in range(rows)]
    table = pa.table(
        {"shard": pa.array([shard] * rows, pa.string()), "multimem": numbers, "index": range(rows)}
    )
    return read_footer(io.BytesIO(score_file(table, run)), "x.parquet")


def check(*urls: str, rows: int) -> FooterCheck:
    commit = Commit(shard_id(URL), RUN, "source", rows, 0, 0, "out/commits/m.json")
    return FooterCheck([commit], {commit.shard_id: urls}, {commit.shard_id: rows})


def test_a_file_of_the_commit_passes_and_is_known() -> None:
    own = check("x", rows=9000)
    own.require("x", footer(9000))
    assert own.known("x")


def test_a_file_that_no_commit_has_is_not_judged() -> None:
    own = check("x", rows=3)
    own.require("missing", footer(1, run="other"))
    assert own.known("missing")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (footer(3, run="0" * 16), "written by run 0000000000000000"),
        (footer(3, shard="/data/b.tar"), "rows of another shard, /data/b.tar"),
        (footer(2), "2 rows where 3"),
        (footer(4), "4 rows where 3"),
    ],
)
def test_another_file_is_refused_with_the_way_out(found: pq.FileMetaData, said: str) -> None:
    with pytest.raises(StorageError, match=rf"^x: .*{said}.*remove out/commits/m.json and run"):
        check("x", rows=3).require("x", found)


def test_rows_of_several_files_are_summed() -> None:
    own = check("x", "y", rows=5)
    own.require("x", footer(3))
    with pytest.raises(StorageError, match=r"^y: 4 rows where 5"):
        own.require("y", footer(1))
    own.require("y", footer(2))
