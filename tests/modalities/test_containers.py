"""Containers are told by their bytes alone."""

from __future__ import annotations

from multimem_ray.modalities.containers import container_of, defect
from tests.modalities.media import sound_bytes, tone


def test_containers_are_told_by_their_first_bytes() -> None:
    assert container_of(sound_bytes(tone(), kind="MP3")) is None
    assert container_of(sound_bytes(tone(), kind="WAV")) is None
    assert container_of(b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n") is None
    assert container_of(b"") is None


def test_every_container_has_a_sign_of_its_own() -> None:
    for raw, name in (
        (b"\0\0\0\x18ftypisom", "mov"),
        (b"\x1a\x45\xdf\xa3\x9f", "matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"\xff\xf1\x50\x80", "aac"),
    ):
        assert container_of(raw) == name


def test_what_ffmpeg_would_not_notice() -> None:
    header = b"\x1a\x45\xdf\xa3\x80"
    segment = b"\x18\x53\x80\x67"
    assert defect(header + segment + b"\x82ab", "matroska") is None
    assert defect(header + segment + b"\x84ab", "matroska") == (
        "cut short: the file is smaller than it says"
    )
    assert defect(header + segment + b"\xffab", "matroska") is None, "of unknown size"
    table = b"stsz" + bytes(8) + (10**6).to_bytes(4, "big")
    assert defect(table, "mov") == "it promises more frames than it has bytes"
