"""What PNG files say beside their pixels: turned how, and text without end.

Format: PNG (W3C, third edition), 5.3 and 11.3; profiles as ImageMagick writes them.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

MAGIC = b"\x89PNG\r\n\x1a\n"
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_PROFILE = "Raw profile type "
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")


def without_text(raw: bytes) -> bytes:
    """The same picture without text and colour profiles, of which Pillow takes a megabyte.

    Whatever says how the picture is turned is short, and stays.
    """
    return MAGIC + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in _chunks(raw)
        if name not in _TEXT or (_turns(data) and _short(name, data))
    )


def profile(info: Mapping[Any, Any], kind: str) -> bytes | None:
    """A profile in ImageMagick's notation: a name, a length, hexadecimal digits."""
    text = info.get(_PROFILE + kind)
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split()[2:]))
    except ValueError:
        return None


def xmp_orientation(xmp: bytes) -> int | None:
    """The orientation in an XMP packet, if it names one."""
    match = _XMP_ORIENTATION.search(xmp)
    return int(match[1]) if match else None


def _turns(data: bytes) -> bool:
    return data.startswith((_PROFILE.encode(), b"XML:com.adobe.xmp"))


def _short(name: bytes, data: bytes) -> bool:
    """Whether Pillow will read it: less than its megabyte when unpacked."""
    at = data.find(b"\0")
    if name == b"iTXt":
        if data[at + 1 : at + 2] != b"\1":
            return len(data) < 1 << 20
        at = data.find(b"\0", data.find(b"\0", at + 3) + 1) - 1
    if name == b"tEXt":
        return len(data) < 1 << 20
    try:
        return len(zlib.decompressobj().decompress(data[at + 2 :], 1 << 20)) < 1 << 20
    except zlib.error:
        return False


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(MAGIC)
    while at + 12 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        yield raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        at += 12 + size
