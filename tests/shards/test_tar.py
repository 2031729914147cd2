"""The forms of tar that a shard may have, against Python's own tarfile."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from multimem_ray.shards.tar import MAX_PADDING
from tests.shards.tars import (
    END,
    PLAIN,
    archive,
    contents,
    grouped,
    padded,
    parted,
    raw_header,
    read,
)

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.tar"


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_all_formats_give_the_same_samples(path: Path, form: int) -> None:
    samples, failures = parted(read(path, archive(PLAIN, form)))
    assert not failures
    assert contents(samples) == grouped(PLAIN)
    assert [s.index for s in samples] == [0, 1, 2, 3]
    assert {s.shard for s in samples} == {str(path)}


@pytest.mark.parametrize("form", ["gnu", "pax"])
@pytest.mark.parametrize("length", [99, 100, 101, 255, 256, 511, 512, 513, 5000])
def test_long_names(path: Path, form: str, length: int) -> None:
    key = ("p" * 50 + "/") * 20 + "k" * 5000
    key = key[-length:].lstrip("/")
    members = [(key + ".jpg", b"1"), (key + ".txt", b"2"), ("z.txt", b"3")]
    samples, failures = parted(read(path, archive(members, FORMS[form])))
    assert not failures
    assert contents(samples) == {key: {"jpg": b"1", "txt": b"2"}, "z": {"txt": b"3"}}


def test_ustar_prefix_is_used(path: Path) -> None:
    key = "f" * 120 + "/" + "g" * 60
    assert contents(parted(read(path, archive([(key + ".txt", b"1")])))[0]) == {key: {"txt": b"1"}}


def test_gnu_times_are_no_prefix(path: Path) -> None:
    header = bytearray(raw_header(b"a.txt", b"00000000001\0", magic=b"ustar  \0"))
    header[345:357] = b"14000000000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    samples, failures = parted(read(path, bytes(header) + padded(b"1") + END))
    assert not failures
    assert contents(samples) == {"a": {"txt": b"1"}}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_names_in_utf8_and_not(path: Path, form: int) -> None:
    members = [("é中.txt", b"1"), ("b\udcff.txt", b"2")]
    samples, failures = parted(read(path, archive(members, form)))
    assert not failures
    assert [s.key for s in samples] == ["é中", "b\\xff"]
    assert all(s.key.encode() for s in samples)


@pytest.mark.parametrize(
    "size",
    [b"00000000003\0", b"0000000003 ", b"          3\0", b"3\0", b"\x80" + bytes(10) + b"\x03"],
)
def test_spellings_of_the_size(path: Path, size: bytes) -> None:
    data = raw_header(b"a.txt", size) + padded(b"abc") + END
    assert contents(parted(read(path, data))[0]) == {"a": {"txt": b"abc"}}


@pytest.mark.parametrize(
    "size", [b"0000000000x\0", b"99999999999\0", b"-0000000003\0", b"\xff" * 12, b"1_0\0"]
)
def test_sizes_that_are_none(path: Path, size: bytes) -> None:
    good = (
        raw_header(b"a.txt", b"3\0") + padded(b"abc") + raw_header(b"b.txt", b"3\0") + padded(b"x")
    )
    samples, failures = parted(read(path, good + raw_header(b"c.txt", size) + padded(b"abc") + END))
    assert [s.key for s in samples] == ["a"]
    assert [(f.key, f.error) for f in failures] == [("b", "bad_header"), (None, "bad_header")]
    assert "byte 2048" in failures[1].detail


def test_old_v7_archive(path: Path) -> None:
    data = (
        raw_header(b"dir.d/", b"0\0", kind=b"\0", magic=bytes(8))
        + raw_header(b"dir.d/a.txt", b"3\0", kind=b"\0", magic=bytes(8))
        + padded(b"abc")
        + END
    )
    assert contents(parted(read(path, data))[0]) == {"dir.d/a": {"txt": b"abc"}}


def test_checksum_of_signed_characters(path: Path) -> None:
    name = "é.txt".encode()
    header = bytearray(raw_header(name, b"3\0"))
    signed = sum(b - 256 if b > 127 else b for b in header[:148] + header[156:]) + 256
    header[148:156] = b"%06o\0 " % signed
    assert contents(parted(read(path, bytes(header) + padded(b"abc") + END))[0]) == {
        "é": {"txt": b"abc"}
    }


def test_pax_size_and_global_header(path: Path) -> None:
    def pax(kind: bytes, *records: bytes) -> bytes:
        body = b"".join(b"%d %s\n" % (len(r) + 4, r) for r in records)
        return raw_header(b"PaxHeader", b"%o\0" % len(body), kind=kind) + padded(body)

    data = (
        pax(b"g", b"comment=git")
        + pax(b"x", b"path=k.txt", b"size=600")
        + raw_header(b"other", b"0\0")
        + padded(b"z" * 600)
        + raw_header(b"l.txt", b"1\0")
        + padded(b"1")
        + END
    )
    samples, failures = parted(read(path, data))
    assert not failures
    assert contents(samples) == {"k": {"txt": b"z" * 600}, "l": {"txt": b"1"}}


@pytest.mark.parametrize(
    "body",
    [b"nonsense", b"99 path=a.txt\n", b"0 =\n", b"13 path=a.txt\n", b"11 size=-3\n", b"4 x\n"],
)
def test_pax_header_that_cannot_be_read(path: Path, body: bytes) -> None:
    data = (
        raw_header(b"P", b"%o\0" % len(body), kind=b"x")
        + padded(body)
        + raw_header(b"a.txt", b"1\0")
        + padded(b"1")
        + END
    )
    samples, failures = parted(read(path, data))
    assert not samples
    assert [f.error for f in failures] == ["bad_header"]


def test_extension_without_member_or_far_too_large(path: Path) -> None:
    lonely = raw_header(b"././@LongLink", b"3\0", kind=b"L") + padded(b"a.t") + END
    assert [f.error for f in parted(read(path, lonely))[1]] == ["bad_header"]
    large = raw_header(b"P", b"\x80" + b"\x01" * 11, kind=b"x")
    assert [f.error for f in parted(read(path, large))[1]] == ["bad_header"]


@pytest.mark.parametrize(("kind", "word"), [(b"1", "hard"), (b"2", "symbolic"), (b"6", "pipe")])
def test_links_and_pipes_fail_their_sample(path: Path, kind: bytes, word: str) -> None:
    data = (
        raw_header(b"a.txt", b"1\0")
        + padded(b"1")
        + raw_header(b"a.jpg", b"7\0", kind=kind)
        + raw_header(b"folder", b"0\0", kind=kind)
        + raw_header(b"b.txt", b"1\0")
        + padded(b"1")
        + END
    )
    samples, failures = parted(read(path, data))
    assert contents(samples) == {"b": {"txt": b"1"}}
    assert samples[0].index == 1
    assert [(f.key, f.index, f.error) for f in failures] == [("a", 0, "not_a_file")]
    assert word in failures[0].detail


def test_sparse_and_unknown_types_fail_their_sample(path: Path) -> None:
    sparse = bytearray(raw_header(b"a.bin", b"3\0", kind=b"S", magic=b"ustar  \0"))
    sparse[482] = 1
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    body = b"22 GNU.sparse.major=1\n25 GNU.sparse.name=c.bin\n\n"
    data = (
        bytes(sparse)
        + bytes(512)
        + padded(b"abc")
        + raw_header(b"b.bin", b"3\0", kind=b"Z")
        + padded(b"abc")
        + raw_header(b"P", b"%o\0" % (len(body) - 1), kind=b"x")
        + padded(body[:-1])
        + raw_header(b"GNUSparseFile.0/c.bin", b"3\0")
        + padded(b"abc")
        + raw_header(b"d.bin", b"3\0")
        + padded(b"abc")
        + END
    )
    samples, failures = parted(read(path, data))
    assert contents(samples) == {"d": {"bin": b"abc"}}
    assert [(f.key, f.error) for f in failures] == [(k, "not_a_file") for k in "abc"]


def test_gzip_whatever_the_name(path: Path) -> None:
    data = archive(PLAIN)
    samples, failures = parted(read(path, gzip.compress(data)))
    assert not failures
    assert contents(samples) == grouped(PLAIN)


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"\x28\xb5\x2f\xfd", "zstandard"), (b"BZh9", "bzip2"), (b"PK\x03\x04", "zip")],
)
def test_other_compressions_are_named(path: Path, head: bytes, name: str) -> None:
    samples, failures = parted(read(path, head + bytes(2000)))
    assert not samples
    assert [(f.key, f.error) for f in failures] == [(None, "not_a_tar")]
    assert name in failures[0].detail


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<html>" + bytes(2000), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2000), "PNG"),
    ],
)
def test_what_is_no_archive_is_named(path: Path, data: bytes, name: str) -> None:
    _, failures = parted(read(path, data))
    assert [(f.key, f.error) for f in failures] == [(None, "not_a_tar")]
    assert f", but {name};" in failures[0].detail


def test_padding_of_any_usual_size_is_fine(path: Path) -> None:
    out = io.BytesIO(archive(PLAIN).rstrip(b"\0"))
    body = padded(out.getvalue())
    for zeros in (512, 1024, 10240, 1 << 20):
        samples, failures = parted(read(path, body + bytes(zeros)))
        assert not failures
        assert len(samples) == 4
    samples, failures = parted(read(path, body + bytes(MAX_PADDING + 1024)))
    assert len(samples) == 3
    assert [(f.key, f.error) for f in failures] == [("d", "zero_filled"), (None, "zero_filled")]
