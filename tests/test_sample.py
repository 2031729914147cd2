from __future__ import annotations

import gzip
import json

import pytest

from multimem_ray.errors import SampleError
from multimem_ray.sample import Sample


def sample(**members: bytes) -> Sample:
    return Sample("a/b", "x.tar", 3, members)


def test_field_finds_members_and_json_values() -> None:
    one = sample(txt=b"hi", json=json.dumps({"a": {"b": [1, 2]}, "n": None}).encode())
    assert one.field("txt") == b"hi"
    assert one.field("json.a.b") == [1, 2]
    assert one.field("json") == one.members["json"]
    for absent in ("jpg", "json.x", "json.a.x", "json.a.b.c", "json.n"):
        assert one.field(absent) is None


def test_without_json_there_is_no_metadata() -> None:
    assert sample(txt=b"hi").metadata() == {}
    assert sample(txt=b"hi").field("json.caption") is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b"7", b"\xff\xfe\xfd", b'{"a": "\xe9"}', b"[" * 100_000]
)
def test_unreadable_json_is_an_error_of_the_sample(data: bytes) -> None:
    with pytest.raises(SampleError, match="json member") as caught:
        sample(json=data).field("json.caption")
    assert (caught.value.kind, caught.value.stage) == ("bad_json", "read")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_in_any_unicode_encoding(encoding: str) -> None:
    assert sample(json='{"c": "né"}'.encode(encoding)).metadata() == {"c": "né"}


def test_lone_surrogates_become_something_that_can_be_written() -> None:
    one = sample(json=b'{"c": ["ok", "x\\uD800y"], "\\udc00": {"d": "\\ud83d\\ude00"}}')
    assert one.metadata() == {"c": ["ok", "x?y"], "?": {"d": "\N{GRINNING FACE}"}}


def test_packed_members_are_unpacked_as_webdataset_does() -> None:
    packed = gzip.compress(b"a cap") + gzip.compress(b"tion")
    one = sample(**{"txt.gz": packed, "json.gz": gzip.compress(b'{"label": 3}')})
    assert one.field("txt") == b"a caption"
    assert one.field("txt") is one.field("txt")
    assert one.field("txt.gz") == packed
    assert one.field("json.label") == 3
    assert set(one.extensions) == {"txt", "json"}
    assert sample(**{"txt.gz": packed, "txt": b"own"}).field("txt") == b"own"


@pytest.mark.parametrize(
    ("packed", "kind"),
    [
        (b"no gzip", "undecodable"),
        (gzip.compress(b"a caption", mtime=0)[:-9], "undecodable"),
        (gzip.compress(bytes(17 << 20), mtime=0), "too_large"),
        (gzip.compress(bytes(9 << 20), mtime=0) * 2, "too_large"),
    ],
)
def test_packed_members_that_cannot_be_used(packed: bytes, kind: str) -> None:
    with pytest.raises(SampleError, match=r"txt\.gz") as caught:
        sample(**{"txt.gz": packed}).field("txt")
    assert caught.value.kind == kind
