from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimem_ray.errors import (
    ConfigError,
    MultiMemWarning,
    ShardError,
    ShardNotFoundError,
    StorageError,
)
from multimem_ray.shards.find import Found, find_shards
from multimem_ray.storage import Storage
from tests.s3 import S3Server

NAMES = [
    "a-0.tar",
    "a-1.tar",
    "a-2.tar",
    "sub/b.tar.gz",
    "sub/deep/c.tgz",
    "sub/notes.txt",
    "plain",
]


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    storage, root = Storage(), str(tmp_path / "data")
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        storage, root = server.storage, server.bucket()
    for name in NAMES:
        storage.write_atomic(f"{root}/{name}", name.encode())
    return storage, root


def names(found: Found, root: str) -> list[str]:
    return [info.url.removeprefix(root + "/") for info in found.shards]


@pytest.mark.parametrize(
    ("spec", "expected", "missing"),
    [
        ("{}/a-1.tar", ["a-1.tar"], []),
        ("{}/a-{{0..3}}.tar", ["a-0.tar", "a-1.tar", "a-2.tar"], ["a-3.tar"]),
        ("{}/a-{{2,0}}.tar", ["a-2.tar", "a-0.tar"], []),
        ("{}/*.tar", ["a-0.tar", "a-1.tar", "a-2.tar"], []),
        ("{}/{{a,z}}-[01]*", ["a-0.tar", "a-1.tar"], ["z-[01]*"]),
        ("{}/sub/**", ["sub/b.tar.gz", "sub/deep/c.tgz"], []),
        ("{}", ["a-0.tar", "a-1.tar", "a-2.tar", "sub/b.tar.gz", "sub/deep/c.tgz"], []),
        ("{}/", ["a-0.tar", "a-1.tar", "a-2.tar", "sub/b.tar.gz", "sub/deep/c.tgz"], []),
        ("{}/sub/:: {}/a-2.tar", ["sub/b.tar.gz", "sub/deep/c.tgz", "a-2.tar"], []),
        ("{}/plain::{}/none::{}/none", ["plain"], ["none"]),
    ],
)
def test_specifications(
    place: tuple[Storage, str], spec: str, expected: list[str], missing: list[str]
) -> None:
    storage, root = place
    found = find_shards(spec.format(*[root] * 3), storage)
    assert names(found, root) == expected
    assert [path.removeprefix(root + "/") for path in found.missing] == missing
    assert all(info == storage.info(info.url) for info in found.shards)


def test_lists_may_hold_anything(place: tuple[Storage, str]) -> None:
    storage, root = place
    inner = f"\ufeff# comment\n\n{root}/a-{{0..1}}.tar\r\n  {root}/sub  \n"
    storage.write_atomic(f"{root}/inner.txt", inner.encode())
    storage.write_atomic(f"{root}/outer.txt", f"@{root}/inner.txt::{root}/a-2.tar".encode())
    found = find_shards([f"@{root}/outer.txt", f"{root}/plain"], storage)
    assert names(found, root) == [*NAMES[:2], "sub/b.tar.gz", "sub/deep/c.tgz", "a-2.tar", "plain"]


def test_duplicates_are_dropped_with_a_warning(place: tuple[Storage, str]) -> None:
    storage, root = place
    with pytest.warns(MultiMemWarning, match="2 shards"):
        found = find_shards([f"{root}/*.tar", f"{root}/a-0.tar", f"{root}/a-{{1..1}}.tar"], storage)
    assert names(found, root) == NAMES[:3]


def test_the_same_file_in_two_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(MultiMemWarning):
        found = find_shards(
            ["a.tar", f"{tmp_path}/a.tar", "./a.tar", f"file://{tmp_path}/a.tar"], Storage()
        )
    assert [info.url for info in found.shards] == ["a.tar"]


def test_one_listing_per_folder(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, root = s3_server.storage, s3_server.bucket()
    for i in range(5):
        storage.write_atomic(f"{root}/d/{i}.tar", b"1")
    asked: list[str] = []
    real = Storage.list

    def counted(self: Storage, prefix: str, **options: Any) -> Any:
        asked.append(prefix)
        return real(self, prefix, **options)

    monkeypatch.setattr(Storage, "list", counted)
    monkeypatch.setattr(Storage, "info", None)
    assert len(find_shards(f"{root}/d/{{0..9}}.tar", storage).shards) == 5
    assert asked == [f"{root}/d"]


@pytest.mark.parametrize(
    "spec", ["{}/none-{{0..9}}.tar", "{}/none/", "{}/none*", "{}/sub/deep/none"]
)
def test_no_shard_at_all(place: tuple[Storage, str], spec: str) -> None:
    storage, root = place
    with pytest.raises(ShardNotFoundError, match="none"):
        find_shards(spec.format(root), storage)


def test_a_folder_without_shards(place: tuple[Storage, str]) -> None:
    storage, root = place
    storage.write_atomic(f"{root}/empty/readme.txt", b"")
    with pytest.raises(ShardNotFoundError, match="empty"):
        find_shards(f"{root}/empty", storage)
    assert find_shards([f"{root}/empty", f"{root}/a-0.tar"], storage).missing == [f"{root}/empty"]


@pytest.mark.parametrize("name", ["x.tar.zst", "x.tar.bz2", "x.tar.xz"])
def test_other_compressions_are_refused(place: tuple[Storage, str], name: str) -> None:
    storage, root = place
    storage.write_atomic(f"{root}/packed/{name}", b"")
    for spec in (f"{root}/packed/{name}", f"{root}/packed", f"{root}/packed/*"):
        with pytest.raises(ShardError, match=r"x\.tar.*not supported"):
            find_shards(spec, storage)


def test_what_the_user_got_wrong_is_named(tmp_path: Path) -> None:
    storage = Storage()
    with pytest.raises(ConfigError, match=r"a-\{0"):
        find_shards("a-{0..3.tar", storage)
    with pytest.raises(StorageError, match=r"none\.txt"):
        find_shards("@none.txt", storage)
    circle = tmp_path / "circle.txt"
    circle.write_text(f"@{circle}")
    with pytest.raises(ConfigError, match="circle"):
        find_shards(f"@{circle}", storage)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StorageError, match="UTF-8"):
        find_shards(f"@{tmp_path}/binary", storage)
    for url in ("pipe:curl x", "https://x/y.tar"):
        with pytest.raises(StorageError, match="not supported"):
            find_shards(url, storage)


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "x[1].tar").write_bytes(b"")
    assert len(find_shards(str(tmp_path / "x[1].tar"), Storage()).shards) == 1


def test_links_and_dots_lead_to_a_shard_once(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "1.tar").write_bytes(b"1")
    (tmp_path / "in" / "2.tar").symlink_to(tmp_path / "in" / "1.tar")
    spec = [f"{tmp_path}/in/*.tar", f"{tmp_path}/in/deep/../1.tar"]
    with pytest.warns(MultiMemWarning, match="2 shards are named more than once"):
        found = find_shards(spec, Storage())
    assert [info.url for info in found.shards] == [f"{tmp_path}/in/1.tar"]


def test_a_folder_behind_a_link_is_followed_and_a_circle_is_not(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "in").mkdir()
    for name in ("in/1.tar", "other/2.tar"):
        (tmp_path / name).write_bytes(b"t")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "in")
    found = find_shards(f"{tmp_path}/in", Storage())
    assert names(found, str(tmp_path)) == ["in/1.tar", "in/more/2.tar"]


@pytest.mark.parametrize("spec", ["{}/v[2]", "{}/v[2]/*.tar", "{}/v[2]/1.tar"])
def test_a_folder_with_brackets_in_its_name_is_found(tmp_path: Path, spec: str) -> None:
    (tmp_path / "v[2]").mkdir()
    (tmp_path / "v[2]" / "1.tar").write_bytes(b"t")
    found = find_shards(spec.format(tmp_path), Storage())
    assert names(found, str(tmp_path)) == ["v[2]/1.tar"]
