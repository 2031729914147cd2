"""Names of copies: those of the shards where they differ, numbered where they don't."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimem_ray.errors import ConfigError
from multimem_ray.shards.copies import copies
from multimem_ray.storage import FileInfo, Storage


def shards(*urls: str) -> list[FileInfo]:
    return [FileInfo(url, 0, "") for url in urls]


def test_copies_are_plain_tars_under_their_own_names() -> None:
    found = copies(shards("/a/x.tar", "s3://b/y.tar.gz", "/a/z.tgz"), "/out/", Storage())
    assert found == ["/out/x.tar", "/out/y.tar", "/out/z.tar"]


def test_equal_names_are_numbered() -> None:
    found = copies(shards("/a/x.tar", "/b/x.tar"), "s3://out", Storage())
    assert found == ["s3://out/000000-x.tar", "s3://out/000001-x.tar"]


def test_a_shard_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="write the copy elsewhere"):
        copies(shards(str(tmp_path / "x.tar")), str(tmp_path / "link"), Storage())
