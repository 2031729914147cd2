"""Which container some bytes are, told by the bytes alone.

FFmpeg is given its name: left to guess, it also opens playlists, which may name files and
addresses.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import av

_BUFFER = 1 << 18
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
# Twelve bits of ones, then layer 0, which MP3 does not have (ISO 14496-3, 1.A.2.2).
_ADTS = frozenset({b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9"})
_OPEN_END = 0x7FFF0000
_TAGS = 1024  # bytes that tags may take behind an MP3, less than any joined one
_W64 = b"riff\x2e\x91\xcf\x11"
_MPEG_IN_WAV = frozenset({b"\x50\0", b"\x55\0"})  # the format's tag: layer II, layer III
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
    return "aac" if raw[:2] in _ADTS or _adts_behind_tag(raw) else None


def _adts_behind_tag(raw: bytes) -> bool:
    return raw.startswith(b"ID3") and raw[(at := behind_id3(raw)) : at + 2] in _ADTS


def behind_id3(raw: bytes) -> int:
    """Where an ID3v2 tag ends (ID3v2.4, 3.1: four times seven bits); 0 without one."""
    if not raw.startswith(b"ID3") or len(raw) < 10:
        return 0
    size = 0
    for byte in raw[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if raw[5] & 0x10 else 0)


def needs_packets(raw: bytes) -> str | None:
    """FFmpeg's name of a stream whose length only its packets tell; None for all others.

    MPEG audio has no length but in a header of its encoder, which one written to a pipe lacks,
    layers I and II never have, and which in joined files speaks of the first part alone.
    """
    if raw.startswith(b"RIFF"):
        return "wav" if raw[8:16] == b"WAVEfmt " and raw[20:22] in _MPEG_IN_WAV else None
    if raw.startswith(b"\0\0"):
        # What lies before the first frame is not sound: FFmpeg looks for one, libsndfile does not.
        behind = raw.lstrip(b"\0")
        return "mp3" if _is_mpeg(behind, behind_id3(behind)) else None
    at = behind_id3(raw)
    if not _is_mpeg(raw, at):
        return None
    head = raw[at : at + 200]
    told = b"Xing" in head or b"Info" in head or b"VBRI" in head
    if told and at + _told_size(head) >= len(raw) - _TAGS:
        return None
    joined = raw.count(b"Xing\0\0\0") + raw.count(b"Info\0\0\0") > 1
    return "mp3" if joined or not told else None


def _told_size(head: bytes) -> int:
    """The bytes of a stream as its encoder's header has them; 0 if it does not say."""
    place = max(head.find(b"Xing"), head.find(b"Info"))
    flags = head[place + 7] if 0 <= place < len(head) - 16 else 0
    first = place + (12 if flags & 1 else 8)
    return int.from_bytes(head[first : first + 4], "big") if flags & 2 else 0


def _is_mpeg(raw: bytes, at: int) -> bool:
    """Whether a frame of MPEG audio begins here: eleven bits of ones, and a layer."""
    return raw[at : at + 1] == b"\xff" and raw[at + 1 : at + 2] >= b"\xe0" and raw[at + 1] & 6 != 0


def links(raw: bytes) -> list[bytes]:
    """The parts of a chained Ogg, each a file of its own (RFC 3533, 4); all of it if there is one.

    A page that begins a stream stands behind one that does not.
    """
    if raw.find(b"OggS\0\2", 27) < 0:
        return [raw]
    starts, at, begins = [0], 0, True
    while at >= 0:
        if raw[at + 5 : at + 6] == b"\2" and not begins:
            starts.append(at)
        begins = raw[at + 5 : at + 6] == b"\2"
        at = raw.find(b"OggS\0", at + 27)
    return [raw[start:end] for start, end in zip(starts, [*starts[1:], len(raw)], strict=True)]


def missing_bytes(raw: bytes) -> int:
    """How many bytes a file announces and does not have; 0 where it says no length.

    Of WAV, RF64, W64, AIFF, AU and AVI, and of the last page of an Ogg. Sizes near the largest
    stand for a stream whose writer could not know, and so does that of 0.
    """
    if raw.startswith(b"OggS"):
        at = raw.rfind(b"OggS")
        table = at + 27 + (raw[at + 26] if at + 26 < len(raw) else 0)
        return max(0, table + sum(raw[at + 27 : table]) - len(raw))
    if raw.startswith(b".snd"):
        first, size = (int.from_bytes(raw[place : place + 4], "big") for place in (4, 8))
        return 0 if size >= _OPEN_END else max(0, first + size - len(raw))
    if raw.startswith(_W64):
        return max(0, int.from_bytes(raw[16:24], "little") - len(raw))
    if raw[:4] == b"RIFF" and raw[8:12] == b"AVI ":
        size = int.from_bytes(raw[4:8], "little")
        return 0 if size >= _OPEN_END else max(0, 8 + size - len(raw))
    return _missing_in_chunks(raw)


def _missing_in_chunks(raw: bytes) -> int:
    big, long = raw[:4] == b"FORM", raw[:4] == b"RF64"
    if not (big or long or raw[:4] == b"RIFF"):
        return 0
    at = 12
    while at + 8 <= len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "big" if big else "little")
        if raw[at : at + 4] in (b"data", b"SSND"):
            if long and size >= _OPEN_END:
                size = int.from_bytes(raw[28:36], "little")  # EBU Tech 3306: in the chunk ds64
                return max(0, at + 8 + size - len(raw))
            return 0 if size >= _OPEN_END else max(0, at + 8 + size - len(raw))
        at += 8 + size + size % 2
    return 0


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
    if container == "avi" and missing_bytes(raw):
        return f"cut short: {missing_bytes(raw)} bytes are missing at its end"
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


def is_mirrored(raw: bytes) -> bool:
    """Whether a track of an MP4 is shown as in a mirror (``tkhd``, ISO 14496-12, 8.3.2)."""
    at = raw.find(b"tkhd")
    while at >= 0:
        # The matrix stands behind times of 32 bits each or, in version 1, of 64.
        first = at + (56 if raw[at + 4 : at + 5] == b"\1" else 44)
        values = struct.unpack_from(">5i", raw[first : first + 20].ljust(20, b"\0"))
        if values[0] * values[4] < values[1] * values[3]:
            return True
        at = raw.find(b"tkhd", at + 1)
    return False


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
