"""The reader on sound shards, as webdataset reads them, and on broken ones: nothing is lost."""

from __future__ import annotations

import gzip
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from multimem_ray.config import LimitsConfig
from multimem_ray.sample import Failure, Sample
from multimem_ray.shards.reader import read_shard, split_name
from multimem_ray.storage import Storage
from tests.s3 import S3Server
from tests.shards.tars import (
    END,
    PLAIN,
    anatomy,
    archive,
    contents,
    grouped,
    padded,
    parted,
    raw_header,
    read,
)

GOOD = archive(PLAIN)
PIECES = anatomy(GOOD)
KEYS = list(grouped(PLAIN))
META = {"__key__", "__url__", "__local_path__"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.tar"


def by_webdataset(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    found = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [(s["__key__"], {k: v for k, v in s.items() if k not in META}) for s in found]


def by_us(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    samples, failures = parted(read_shard(str(path), Storage()))
    assert not failures
    return [(s.key, dict(s.members)) for s in samples]


# --- sound shards -------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize("name", ["fsdd_mnist_ait", "grid_s1_avt", "esc10_ait", "coco_cc_it"])
def test_real_shards_as_webdataset_reads_them(
    shared_data: Callable[[str], list[Path]], name: str
) -> None:
    for shard in shared_data(name)[:2]:
        assert by_us(shard) == by_webdataset(shard)


def test_names_as_webdataset_takes_them(path: Path) -> None:
    names = [
        "a.JPG", "a.seg.png", "b.txt", "./c.txt", "../d.txt", "/e.txt", "x.y/f.txt", "x.y/g",
        "noext", ".hidden.txt", "__meta__", "__x__/h.txt", "__i.txt", "j.", "k l.txt", "m..txt",
        "._n.jpg", "o/p/q.tar.gz", "__y.txt__",
    ]  # fmt: skip
    path.write_bytes(archive([(name, name.encode()) for name in names]))
    assert by_us(path) == by_webdataset(path)


def test_hidden_files_in_folders_are_left_out(path: Path) -> None:
    names = [
        "d/._a.jpg",
        "__MACOSX/b.jpg",
        "c/__MACOSX/d.jpg",
        "d/.e.txt",
        "d/a.jpg",
        "x__MACOSX/f.txt",
    ]
    samples, failures = parted(read(path, archive([(name, b"1") for name in names])))
    assert not failures
    assert [s.key for s in samples] == ["d/a", "x__MACOSX/f"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("ab./_é", min_size=1, max_size=120).map(lambda name: name.rstrip("/") or "a"),
            st.binary(max_size=700),
        ),
        max_size=12,
        unique_by=lambda member: member[0].lower(),
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_sound_archive_is_read_as_webdataset_reads_it(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], form: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.tar"
    members = [member for member in members if "/." not in member[0] or split_name(member[0])]
    path.write_bytes(archive(members, form))
    seen: set[str] = set()
    expected = []
    for key, content in by_webdataset(path):
        if key not in seen:
            expected.append((key, content))
        seen.add(key)
    samples, failures = parted(read_shard(str(path), Storage()))
    assert [(s.key, dict(s.members)) for s in samples] == expected
    assert {f.error for f in failures} <= {"repeated_key", "empty"}


def test_s3_shards_are_read_the_same(s3_server: S3Server) -> None:
    url = f"{s3_server.bucket()}/x.tar"
    s3_server.storage.write_atomic(url, GOOD)
    samples, failures = parted(read_shard(url, s3_server.storage))
    assert not failures
    assert contents(samples) == grouped(PLAIN)


# --- samples that cannot be taken -----------------------------------------------------------------


def test_repeated_key_keeps_the_first(path: Path) -> None:
    data = archive(
        [("a.txt", b"1"), ("b.txt", b"2"), ("a.txt", b"3"), ("a.jpg", b"4"), ("c.txt", b"5")]
    )
    samples, failures = parted(read(path, data))
    assert contents(samples) == {"a": {"txt": b"1"}, "b": {"txt": b"2"}, "c": {"txt": b"5"}}
    assert [s.index for s in samples] == [0, 1, 3]
    assert [(f.key, f.index, f.error) for f in failures] == [("a", 2, "repeated_key")]


def test_repeated_member_fails_its_sample(path: Path) -> None:
    data = archive([("a.txt", b"1"), ("a.TXT", b"2"), ("a.jpg", b"3"), ("b.txt", b"2")])
    samples, failures = parted(read(path, data))
    assert contents(samples) == {"b": {"txt": b"2"}}
    assert [(f.key, f.index, f.error) for f in failures] == [("a", 0, "repeated_member")]


def test_too_large_is_skipped_without_being_held(path: Path) -> None:
    data = archive([("a.txt", b"1"), ("b.bin", bytes(64 << 20)), ("b.txt", b"2"), ("c.txt", b"3")])
    path.write_bytes(data)
    del data
    tracemalloc.start()
    found = list(read_shard(str(path), Storage(), limits=LimitsConfig(other_bytes=1 << 20)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    samples, failures = parted(found)
    assert [s.key for s in samples] == ["a", "c"]
    assert [(f.key, f.error) for f in failures] == [("b", "too_large")]
    assert peak < 24 << 20


def test_a_sample_of_too_many_members(path: Path) -> None:
    data = archive([(f"a.{i}", b"x" * 100) for i in range(20)] + [("b.txt", b"1")])
    samples, failures = parted(read(path, data, LimitsConfig(sample_bytes=1000)))
    assert [s.key for s in samples] == ["b"]
    assert [(f.key, f.error) for f in failures] == [("a", "too_large")]


# --- damage -------------------------------------------------------------------------------------


def check_prefix(found: list[Sample | Failure], proven: int, cut: str | None) -> None:
    """Samples up to ``proven`` are whole, ``cut`` is named, the rest is one shard failure."""
    samples, failures = parted(found)
    wanted = grouped(PLAIN)
    assert contents(samples) == {key: wanted[key] for key in KEYS[:proven]}
    if cut is None and proven == len(KEYS):
        assert not failures
        return
    assert [f.key for f in failures] == ([cut, None] if cut else [None])
    assert all(f.stage == "read" and f.shard and f.detail for f in failures)


def position(offset: int) -> tuple[int, str | None]:
    """How many samples are proven whole, and which is open, when all ends at ``offset``."""
    begun = [piece for piece in PIECES if piece.content <= offset]
    if not begun:
        return 0, None
    return KEYS.index(begun[-1].key), begun[-1].key


def test_cut_anywhere(path: Path) -> None:
    marker = PIECES[-1].end + -PIECES[-1].end % 512
    boundaries = {piece.end + -piece.end % 512 for piece in PIECES}
    for offset in sorted({*range(0, marker + 513, 7), *boundaries, *(p.content for p in PIECES)}):
        found = read(path, GOOD[:offset])
        if offset >= marker + 512:
            check_prefix(found, len(KEYS), None)
            continue
        check_prefix(found, *position(offset))
        kind = parted(found)[1][-1].error
        expected = "no_end_marker" if offset in boundaries else "truncated"
        assert kind == (expected if offset else "not_a_tar")


def test_flip_any_byte_of_any_header(path: Path) -> None:
    for piece in PIECES:
        before, opened = position(piece.start)
        for offset in range(piece.start, piece.content, 3):
            broken = bytearray(GOOD)
            broken[offset] ^= 1 + offset % 255
            found = read(path, bytes(broken))
            if 155 <= offset - piece.start <= 155:
                continue  # the last byte of the checksum says nothing
            check_prefix(found, before, opened)
            kind = "bad_header" if piece.start else "not_a_tar"
            assert parted(found)[1][-1].error == kind
            assert f"byte {piece.start})" in parted(found)[1][-1].detail


def test_flip_content_or_padding_changes_no_other_sample(path: Path) -> None:
    for number, piece in enumerate(PIECES):
        stop = piece.end + -piece.end % 512
        for offset in range(piece.content, stop, 61):
            broken = bytearray(GOOD)
            broken[offset] ^= 0x55
            samples, failures = parted(read(path, bytes(broken)))
            assert not failures
            members = [list(member) for member in PLAIN]
            if offset < piece.end:
                content = bytearray(PLAIN[number][1])
                content[offset - piece.content] ^= 0x55
                members[number][1] = bytes(content)
            assert contents(samples) == grouped([(str(n), bytes(d)) for n, d in members])


@pytest.mark.parametrize("garbage", [b"x", b"x" * 5000, b"\0" * 7 + b"y", GOOD])
def test_data_behind_the_end_marker(path: Path, garbage: bytes) -> None:
    found = read(path, GOOD + garbage)
    check_prefix(found, 3, "d")
    assert parted(found)[1][-1].error == "trailing_data"


def test_a_hole_of_zeros_in_mid_archive(path: Path) -> None:
    for piece in PIECES[1:]:
        for length in (512, 1024, 2048):
            broken = bytearray(GOOD)
            broken[piece.start : piece.start + length] = bytes(length)
            samples, failures = parted(read(path, bytes(broken)))
            assert len(samples) + len(failures) > position(piece.start)[0]
            if len(bytes(broken[piece.start :]).strip(b"\0")):
                assert [f.error for f in failures] == ["trailing_data"] * 2


def test_swapped_samples_and_members(path: Path) -> None:
    blocks = {p.start: GOOD[p.start : p.end + -p.end % 512] for p in PIECES}
    rng = random.Random(0)
    for _ in range(50):
        order = rng.sample(range(len(PIECES)), len(PIECES))
        data = b"".join(blocks[PIECES[i].start] for i in order) + END
        samples, failures = parted(read(path, data))
        assert {s.key for s in samples} == set(KEYS)
        assert {f.error for f in failures} <= {"repeated_key"}
        held = sum(len(s.members) for s in samples)
        runs = [PIECES[i].key for i in order]
        groups = 1 + sum(a != b for a, b in pairwise(runs))
        assert len(samples) + len(failures) == groups
        assert held <= len(PIECES)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x89PNG" * 1000, b"a" * 512, b"\0" * 100])
def test_what_is_no_archive(path: Path, data: bytes) -> None:
    samples, failures = parted(read(path, data))
    assert not samples
    assert len(failures) == 1
    assert failures[0].key is None
    assert failures[0].error in {"not_a_tar", "truncated"}


@pytest.mark.parametrize("data", [END, bytes(10240), archive([("readme", b"x")])])
def test_an_archive_without_samples_is_told(path: Path, data: bytes) -> None:
    samples, failures = parted(read(path, data))
    assert not samples
    assert [(f.key, f.error) for f in failures] == [(None, "empty")]


def test_size_that_lies_takes_no_memory(path: Path) -> None:
    for size in (b"\x80" + b"\x7f" * 11, b"77777777777\0", b"%011o\0" % (1 << 29)):
        data = raw_header(b"a.txt", b"1\0") + padded(b"1") + raw_header(b"b.txt", size) + b"xyz"
        path.write_bytes(data)
        tracemalloc.start()
        samples, failures = parted(read_shard(str(path), Storage()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [s.key for s in samples] == ["a"]
        assert [f.key for f in failures] == ["b", None]
        assert failures[1].error == "truncated"
        assert peak < 24 << 20


def test_gzip_cut_or_flipped(path: Path) -> None:
    rng = random.Random(1)
    members = [(f"{i:03}.bin", rng.randbytes(3000)) for i in range(40)]
    packed = gzip.compress(archive(members))
    wanted = grouped(members)
    for _ in range(120):
        broken = bytearray(packed)
        offset = rng.randrange(len(broken))
        if rng.random() < 0.5:
            del broken[offset:]
        else:
            broken[offset] ^= 1 << rng.randrange(8)
        samples, failures = parted(read(path, bytes(broken)))
        assert len(samples) == len(wanted) or failures
        if len(broken) < len(packed):
            got = contents(samples)
            assert got == {key: wanted[key] for key in got}
            assert failures[-1].key is None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False), st.sampled_from([0, 1, 2]), st.booleans())
def test_any_damage_is_told_and_nothing_is_invented(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, form: int, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damage.tar"
    names = PLAIN if form == tarfile.USTAR_FORMAT else [("n" * 150 + n, d) for n, d in PLAIN]
    broken = bytearray(archive(names, form))
    if packed:
        broken = bytearray(gzip.compress(bytes(broken)))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(broken))
        match rng.randrange(5):
            case 0:
                broken[at] = rng.randrange(256)
            case 1:
                del broken[at:]
            case 2:
                del broken[at : at + rng.randint(1, 2000)]
            case 3:
                broken[at:at] = rng.randbytes(rng.randint(1, 2000))
            case 4:
                broken[at : at + 512] = bytes(512)
        if not broken:
            break
    samples, failures = parted(read(path, bytes(broken)))
    assert len({s.key for s in samples}) == len(samples)
    assert [x.index for x in samples] == sorted({x.index for x in samples})
    named = {s.key for s in samples} | {f.key for f in failures}
    assert None in named or len(named) >= len(KEYS) - 1
    assert all(item.key is None or item.key.encode() for item in failures)


def test_storage_that_breaks_in_mid_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(GOOD)

    class Breaking:
        def __init__(self, stream: object) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

        def __enter__(self) -> Breaking:
            return self

        def __exit__(self, *_: object) -> None:
            self._stream.close()  # type: ignore[attr-defined]

        def read(self, size: int) -> bytes:
            if self._stream.tell() > 3000:  # type: ignore[attr-defined]
                raise OSError(5, "Input/output error")
            return self._stream.read(size)  # type: ignore[attr-defined,no-any-return]

    whole = Storage.open
    monkeypatch.setattr(Storage, "open", lambda self, url: Breaking(whole(self, url)))
    samples, failures = parted(read_shard(str(path), Storage()))
    assert [s.key for s in samples] == ["a"]
    assert [(f.key, f.error) for f in failures] == [("b", "unreadable"), (None, "unreadable")]
    assert "Input/output error" in failures[1].detail


@pytest.mark.parametrize("url", ["none.tar", "http://x/y.tar", "pipe:cat x"])
def test_what_cannot_be_opened_is_told(tmp_path: Path, url: str) -> None:
    samples, failures = parted(read_shard(url, Storage()))
    assert not samples
    assert [(f.shard, f.key, f.error) for f in failures] == [(url, None, "unreadable")]
    assert parted(read_shard(str(tmp_path), Storage()))[1][0].error == "unreadable"


def names_of(folder: Path, *names: str) -> list[Sample | Failure]:
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return list(read_shard(str(folder / "0.tar"), Storage()))


def test_a_sample_that_became_members_of_another_is_a_failure(tmp_path: Path) -> None:
    sample, lost = names_of(tmp_path, "a.jpg", "a.txt", "a.1.jpg", "a.1.txt")
    assert isinstance(sample, Sample)
    assert isinstance(lost, Failure)
    assert (lost.key, lost.error, lost.index) == ("a.1", "dotted_key", None)
    assert "a key ends at the first dot" in lost.detail
    every = names_of(tmp_path, "a.1.jpg", "a.1.txt", "a.2.jpg", "a.2.txt", "b.jpg", "b.txt")
    assert [item.key for item in every] == ["a", "a.1", "a.2", "b"]


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.txt", "a.seg.png", "a.seg.json"),
        ("a.jpg", "a.txt", "a.thumb.jpg"),
        ("a.left.jpg", "a.right.jpg", "a.txt"),
    ],
)
def test_members_of_two_words_are_no_lost_sample(tmp_path: Path, names: tuple[str, ...]) -> None:
    (sample,) = names_of(tmp_path, *names)
    assert isinstance(sample, Sample)
