"""Names of copies: those of the shards where they differ, with folders where they don't."""

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


def test_equal_names_keep_the_folders_that_tell_them_apart() -> None:
    found = copies(shards("/d/a/x.tar", "/d/b/x.tar"), "s3://out", Storage())
    assert found == ["s3://out/a/x.tar", "s3://out/b/x.tar"]


def test_shards_that_differ_in_their_suffix_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"two shards would be copied to x\.tar"):
        copies(shards("/a/x.tar", "/a/x.tar.gz"), "/out", Storage())


def test_a_shard_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="write the copy elsewhere"):
        copies(shards(str(tmp_path / "x.tar")), str(tmp_path / "link"), Storage())
