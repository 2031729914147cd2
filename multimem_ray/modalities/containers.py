"""Which container some bytes are, told by the bytes alone.

FFmpeg is given its name: left to guess, it also opens playlists, which may name files and
addresses.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import av

_BUFFER = 1 << 18
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
# Twelve bits of ones, then layer 0, which MP3 does not have (ISO 14496-3, 1.A.2.2).
_ADTS = frozenset({b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9"})
_MOV_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})


def container_of(raw: bytes) -> str | None:
    """FFmpeg's name of the container: ``mov`` (MP4, M4A), ``matroska`` (WebM), ``avi``, ``aac``.

    None if it is none of these.
    """
    if raw[4:8] in _MOV_BOXES:
        return "mov"
    if raw.startswith(_EBML):
        return "matroska"
    if raw[:4] == b"RIFF" and raw[8:12] == b"AVI ":
        return "avi"
    return "aac" if raw[:2] in _ADTS else None


def opened(raw: bytes, container: str) -> Any:
    """The bytes as PyAV's container; to be used in a ``with`` statement."""
    # The title of a clip need not be UTF-8.
    return av.open(
        io.BytesIO(raw), format=container, buffer_size=_BUFFER, metadata_errors="replace"
    )


def defect(raw: bytes, container: str) -> str | None:
    """What is wrong with a file that FFmpeg would not notice, or only at a price."""
    if container == "matroska" and _cut_short(raw):
        return "cut short: the file is smaller than it says"
    if container == "mov" and any(count > len(raw) for count in _counts(raw)):
        return "it promises more frames than it has bytes"
    return None


def _counts(raw: bytes) -> Iterator[int]:
    """How many frames an MP4's tables announce (ISO 14496-12, 8.7.3.2 and 8.8.8).

    FFmpeg makes an entry for each, gigabytes of them, before it looks for the first.
    """
    for name, offset in ((b"stsz", 12), (b"trun", 8)):
        at = raw.find(name)
        while at >= 0:
            yield int.from_bytes(raw[at + offset : at + offset + 4], "big")
            at = raw.find(name, at + 1)


def _cut_short(raw: bytes) -> bool:
    """Whether a Matroska file ends before its segment does (RFC 8794, 4 and 6.2).

    FFmpeg takes such an end as the end of the clip. MP4 needs no such check: it lists its frames.
    """
    header, at = _vint(raw, len(_EBML))
    at += header or 0
    if raw[at : at + 4] != _SEGMENT:
        return False
    segment, at = _vint(raw, at + 4)
    return segment is not None and at + segment > len(raw)


def _vint(raw: bytes, at: int) -> tuple[int | None, int]:
    """A size of variable length at ``at``, None if it is unknown; and where it ends."""
    length = 9 - raw[at].bit_length() if at < len(raw) else 1
    value = int.from_bytes(raw[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length
