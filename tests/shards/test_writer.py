from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import webdataset

from multimem_ray.errors import ConfigError, ShardError, StorageError
from multimem_ray.sample import Sample
from multimem_ray.shards.reader import read_shard
from multimem_ray.shards.writer import ShardWriter, create_shard
from multimem_ray.storage import Storage
from tests.s3 import S3Server

SAMPLES = {
    f"{'d' * 120}/é {i}": {"txt": b"t" * i, "jpg": bytes([i]) * 700, "seg.png": b"", "_m": b"m"}
    for i in range(7)
}


def write(folder: str, storage: Storage | None = None, **options: int) -> list[str]:
    with ShardWriter(folder, storage, **options) as writer:  # type: ignore[arg-type]
        for key, members in SAMPLES.items():
            writer.write(key, members)
    return writer.urls


def back(urls: list[str], storage: Storage) -> dict[str, dict[str, bytes]]:
    items = [item for url in urls for item in read_shard(url, storage)]
    assert all(isinstance(item, Sample) for item in items)
    return {item.key: dict(item.members) for item in items if isinstance(item, Sample)}


def test_round_trip_here_and_by_webdataset(tmp_path: Path) -> None:
    urls = write(str(tmp_path), max_samples=3)
    assert urls == [f"{tmp_path}/{i:06d}.tar" for i in range(3)]
    assert back(urls, Storage()) == SAMPLES
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in found] == list(SAMPLES)
    assert all(s["seg.png"] == b"" for s in found)


def test_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = write(str(tmp_path / "a")), write(str(tmp_path / "b"))
    assert [Path(url).read_bytes() for url in first] == [Path(url).read_bytes() for url in second]
    with tarfile.open(first[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar} == {(0, 0, 0, "root")}


def test_shards_are_closed_by_size(tmp_path: Path) -> None:
    # The first sample takes 3584 bytes, each further one 4096: 3, 2 and 2 of them pass the limit.
    urls = write(str(tmp_path), max_bytes=2 * 4096)
    assert [len(back([url], Storage())) for url in urls] == [3, 2, 2]


def test_to_s3(s3_server: S3Server) -> None:
    storage, root = s3_server.storage, s3_server.bucket()
    urls = write(f"{root}/x", storage, max_samples=4)
    assert [info.url for info in storage.list(root)] == urls
    assert back(urls, storage) == SAMPLES


def test_an_error_leaves_finished_shards_and_no_partial_one(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(str(tmp_path), max_samples=2) as writer:
            for number, (key, members) in enumerate(SAMPLES.items()):
                if number == 3:
                    raise KeyboardInterrupt
                writer.write(key, members)

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["000000.tar"]


@pytest.mark.parametrize(
    ("key", "members"),
    [
        ("a.b", {"txt": b""}),
        ("a", {"TXT": b""}),
        ("a", {"x/y": b""}),
        ("a", {"__key__": b""}),
        ("", {"txt": b""}),
        (".a", {"txt": b""}),
        ("__MACOSX/a", {"txt": b""}),
        ("__m__/a", {"txt": b""}),
        ("a\udcff", {"txt": b""}),
        ("a\0", {"txt": b""}),
        ("a", {}),
        ("taken", {"txt": b""}),
    ],
)
def test_what_would_not_be_read_back_is_refused(
    tmp_path: Path, key: str, members: dict[str, bytes]
) -> None:
    with create_shard(str(tmp_path / "x.tar"), Storage()) as shard:
        shard.write("taken", {"txt": b"1"})
        with pytest.raises(ShardError, match=r"x\.tar"):
            shard.write(key, members)
    assert back([str(tmp_path / "x.tar")], Storage()) == {"taken": {"txt": b"1"}}


def test_pattern_needs_a_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.tar"):
        ShardWriter(str(tmp_path), pattern="x.tar")


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/000000"):
        write(str(tmp_path / "file"))
