"""What some bytes are, by their first ones: for refusals, which name what there is."""

from __future__ import annotations

_AT_START = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "a Photoshop file",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\0\0\1\0": "an icon",
    b"qoif": "QOI",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "sound behind an ID3 tag",
    b"FORM": "AIFF",
    b"\x1a\x45\xdf\xa3": "Matroska or WebM",
    b"\x30\x26\xb2\x75": "ASF (WMA or WMV)",
    b"FLV\1": "FLV",
    b"#!AMR": "AMR",
    b"\x0b\x77": "AC-3",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "TTA",
    b"DSD ": "DSD",
    b"MThd": "MIDI",
    b"RIFX": "RIFX",
    b"P5\n": "PGM",
    b"P6\n": "PPM",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"\0\0\1\xba": "an MPEG programme stream",
    b"\x1f\x8b": "gzip",
    b"PK\3\4": "zip",
    b"version https://git-lfs": "a Git LFS pointer",
}
_RIFF = {b"WEBP": "WebP", b"WAVE": "WAV", b"AVI ": "AVI"}
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"M4A ": "M4A",
    b"qt  ": "MOV",
}


def format_of(raw: bytes) -> str | None:
    """The name of a well-known format; None if these bytes begin like none of them."""
    if raw[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(raw[8:12], "RIFF")
    if raw[4:8] == b"ftyp":
        return _BRANDS.get(raw[8:12], "MP4")
    for magic, name in _AT_START.items():
        if raw.startswith(magic):
            return name
    head = raw[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")) or b"<svg" in head:
        return "SVG" if b"<svg" in head else "a web page"
    if raw[:1] == raw[188:189] == b"G":
        return "an MPEG transport stream"
    return "XML" if head.startswith(b"<?xml") else None


def but(raw: bytes) -> str:
    """`` but JPEG XL``, to end a refusal; empty if nothing is known."""
    name = format_of(raw)
    return f", but {name}" if name else ""
