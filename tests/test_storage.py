from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multimem_ray.config import StorageConfig
from multimem_ray.errors import StorageError
from multimem_ray.storage import REMOTE_BLOCK, Storage
from tests.s3 import S3Server


def test_write_read_replace_remove(place: tuple[Storage, str]) -> None:
    storage, root = place
    url = storage.join(root, "a/", "b", "c.bin")
    assert not storage.exists(url)
    storage.write_atomic(url, b"one")
    first = storage.info(url)
    storage.write_atomic(url, b"other")
    assert storage.read_bytes(url) == b"other"
    assert storage.info(url).size == 5
    assert storage.info(url).version != first.version
    assert storage.exists(url)
    assert not storage.exists(storage.join(root, "a"))
    storage.remove(url)
    storage.remove(url)
    assert not storage.exists(url)


def test_list_is_sorted_and_leaves_temporary_names_out(place: tuple[Storage, str]) -> None:
    storage, root = place
    assert storage.list(storage.join(root, "none")) == []
    temporary = f".x.{'0' * 32}.tmp"
    for name in ("b.tar", "a/z.tar", "a/b/c.tar", "a.tar", "ab/c", temporary):
        storage.write_atomic(storage.join(root, name), name.encode())
    found = storage.list(root)
    names = [info.url.removeprefix(root + "/") for info in found]
    assert names == ["a.tar", "a/b/c.tar", "a/z.tar", "ab/c", "b.tar"]
    assert [info.size for info in found] == [len(name) for name in names]
    assert all(info == storage.info(info.url) for info in found)
    assert [info.url for info in storage.list(root + "/", recursive=False)] == [
        f"{root}/a.tar",
        f"{root}/b.tar",
    ]
    assert [info.url for info in storage.list(f"{root}/a")] == [
        f"{root}/a/b/c.tar",
        f"{root}/a/z.tar",
    ]
    storage.remove(f"{root}/a", recursive=True)
    assert [info.url for info in storage.list(root)] == [
        f"{root}/a.tar",
        f"{root}/ab/c",
        f"{root}/b.tar",
    ]


def test_glob(place: tuple[Storage, str]) -> None:
    storage, root = place
    for name in ("b-0.tar", "b-1.tar", "c.tar", "x/b-2.tar", "x/y/b-3.tar"):
        storage.write_atomic(f"{root}/{name}", b"1")

    def names(pattern: str) -> list[str]:
        return [info.url.removeprefix(root + "/") for info in storage.glob(f"{root}/{pattern}")]

    assert names("b-*.tar") == ["b-0.tar", "b-1.tar"]
    assert names("[bc]*.tar") == ["b-0.tar", "b-1.tar", "c.tar"]
    assert names("*/b-?.tar") == ["x/b-2.tar"]
    assert names("**/b-*.tar") == ["b-0.tar", "b-1.tar", "x/b-2.tar", "x/y/b-3.tar"]
    assert names("none-*.tar") == []


def test_open_streams_and_local_copy(place: tuple[Storage, str]) -> None:
    storage, root = place
    url = f"{root}/big.bin"
    data = bytes(range(256)) * (REMOTE_BLOCK // 256) + b"the end" * 1000
    storage.write_atomic(url, data)
    with storage.open(url) as stream:
        assert stream.read(1000) == data[:1000]
        assert stream.read() == data[1000:]
        assert stream.read(1) == b""
    with storage.local_copy(url) as path:
        assert path.read_bytes() == data
    with storage.open(f"{root}/big.bin") as stream:
        stream.read(10)


def test_what_is_absent_is_named(place: tuple[Storage, str]) -> None:
    storage, root = place
    url = f"{root}/none.bin"
    with pytest.raises(StorageError, match=r"none\.bin"):
        storage.read_bytes(url)
    with pytest.raises(StorageError, match=r"none\.bin"):
        storage.info(url)
    with pytest.raises(StorageError, match=r"none\.bin"), storage.open(url) as stream:
        stream.read(1)
    with pytest.raises(StorageError, match=r"none\.bin"), storage.local_copy(url):
        pass


def test_create_appears_at_the_end_or_not_at_all(place: tuple[Storage, str]) -> None:
    storage, root = place
    url = f"{root}/new.bin"
    piece = b"x" * (REMOTE_BLOCK // 2 + 1)
    with storage.create(url) as stream:
        for _ in range(4):
            stream.write(piece)
        assert storage.list(root) == []
    assert storage.info(url).size == 4 * len(piece)

    def fail() -> None:
        with storage.create(url) as stream:
            stream.write(b"y" * (REMOTE_BLOCK + 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert storage.info(url).size == 4 * len(piece)
    with storage.create(f"{root}/small") as stream:
        stream.write(b"small")
    assert storage.read_bytes(f"{root}/small") == b"small"


def test_a_failed_write_leaves_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match=r"file.*No space left"):
        Storage().write_atomic(str(tmp_path / "file"), b"data")
    assert list(tmp_path.iterdir()) == []


def test_survives_pickling(place: tuple[Storage, str]) -> None:
    storage, root = place
    storage.write_atomic(f"{root}/x", b"1")
    again: Storage = pickle.loads(pickle.dumps(storage))
    assert again.read_bytes(f"{root}/x") == b"1"
    assert again.config == storage.config


@pytest.mark.parametrize(
    "url", ["pipe:cat x.tar", "http://a/b.tar", "https://a/b", "gs://a/b", "hdfs://x", "", "a\0b"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(StorageError):
        Storage().read_bytes(url)
    with pytest.raises(StorageError), Storage().open(url):
        pass


def test_local_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage()
    (tmp_path / "a:b.bin").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (f"file://{tmp_path}/a:b.bin", f"file:{tmp_path}/a:b.bin", "a:b.bin", "~/a:b.bin"):
        assert storage.read_bytes(url) == b"1"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="folder"):
        Storage().info(str(tmp_path))
    with pytest.raises(StorageError):
        Storage().read_bytes(str(tmp_path))


def test_no_answer_is_an_error_in_good_time(s3_server: S3Server) -> None:
    config = StorageConfig(endpoint_url="http://127.0.0.1:9", retries=0, timeout_s=1)
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        Storage(config).read_bytes("s3://bucket/key")
    assert time.monotonic() - start < 20
    with pytest.raises(StorageError, match="no-such-bucket"):
        s3_server.storage.write_atomic("s3://no-such-bucket/key", b"1")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Storage(StorageConfig(endpoint_url="http://me:s3cret@127.0.0.1:1")),
        lambda: Storage().read_bytes("s3://me:s3cret@bucket/key"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(make: Callable[[], object]) -> None:
    with pytest.raises(StorageError, match="credentials in it") as caught:
        make()
    assert "s3cret" not in str(caught.value)


def test_an_at_sign_in_a_key_is_no_password() -> None:
    assert Storage().is_remote("s3://bucket/a@b.tar")
