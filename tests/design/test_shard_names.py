"""What a shard is called: as much of the end of its path as tells it from the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.design.shard_names import located, parts_needed, require_parts, tail
from multimem_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("urls", "parts"),
    [
        ([], 1),
        (["/a/1.tar", "/a/2.tar"], 1),
        (["/a/1.tar", "/b/1.tar"], 2),
        (["s3://x/a/d/1.tar", "s3://x/b/d/1.tar", "s3://x/b/d/2.tar"], 3),
        (["/a/1.tar", "/a/1.tar/"], 1),
        (["1.tar", "/a/1.tar"], 2),
    ],
)
def test_a_name_is_the_shortest_tail_that_tells_shards_apart(urls: list[str], parts: int) -> None:
    assert parts_needed(urls) == parts


def test_a_tail_is_never_more_than_the_path() -> None:
    assert [tail("s3://b/a/1.tar", n) for n in (1, 2, 9)] == ["1.tar", "a/1.tar", "s3://b/a/1.tar"]


def test_a_path_is_taken_from_the_root_without_its_dots(tmp_path: Path) -> None:
    assert located(str(tmp_path / "a" / ".." / "1.tar")) == str(tmp_path / "1.tar")
    assert located("s3://b/a/1.tar") == "s3://b/a/1.tar"


def test_a_name_that_is_too_short_is_refused_with_the_way_out() -> None:
    require_parts(["a/1.tar", "/x/a/1.tar"], 2, "list")
    with pytest.raises(ConfigError, match=r"list: '1.tar' does not say which.*last 2 parts"):
        require_parts(["1.tar"], 2, "list")
