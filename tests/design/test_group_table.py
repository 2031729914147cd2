"""Tables of groups: read, asked, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimem_ray.design.group_table import read_groups
from multimem_ray.errors import ConfigError
from multimem_ray.storage import Storage


def written(folder: Path, **columns: Any) -> str:
    path = folder / "groups.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_group_is_told_by_shard_and_key(tmp_path: Path) -> None:
    url = written(
        tmp_path, key=["a", "b", "a"], shard=["/x/1.tar", "/x/1.tar", "2.tar"], group=[1, 1, 2]
    )
    table = read_groups(url, Storage())
    assert (table.group("a", "1.tar"), table.group("a", "2.tar")) == ("1", "2")
    assert table.group("b", "2.tar") is None
    assert table.shards == {"1.tar": 2, "2.tar": 1}
    other = written(tmp_path, key=["a", "b"], group=["g", "g"])
    read = read_groups(other, Storage())
    assert read.group("b", "any.tar") == "g"
    assert read.digest() != table.digest()


def test_an_empty_table_names_nobody(tmp_path: Path) -> None:
    table = read_groups(written(tmp_path, key=pa.array([], "string"), group=[]), Storage())
    assert len(table) == 0
    assert table.group("a", "1.tar") is None


def test_what_is_no_table_of_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two groups"):
        read_groups(written(tmp_path, key=["a", "a"], group=["g", "h"]), Storage())
    with pytest.raises(ConfigError, match="columns 'key' and 'group'"):
        read_groups(written(tmp_path, key=["a"]), Storage())
    with pytest.raises(ConfigError, match="correct the path"):
        read_groups(str(tmp_path / "no.parquet"), Storage())
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_groups(str(tmp_path / "text.parquet"), Storage())
