"""Files made to do harm: small, and promising or unpacking to a great deal.

Run as a program, every one is decoded in turn, and a line of JSON tells what came of it.
"""

from __future__ import annotations

import json
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimem_ray.errors import DecodeError
from multimem_ray.modalities import registry
from tests.modalities.media import (
    gradient,
    image_bytes,
    ramp,
    sound_bytes,
    tone,
    track_bytes,
    video_bytes,
)

TEN_HOURS = 36_000


def png(width: int, height: int, body: bytes = b"", bits: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header says this, whatever its body is."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", body or zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def zeros(side: int) -> bytes:
    """All the rows of a black picture, which compress to next to nothing."""
    packer = zlib.compressobj(1)
    row = bytes(1 + 3 * side)
    return b"".join(packer.compress(row) for _ in range(side)) + packer.flush()


def png_with_much_text() -> bytes:
    good = image_bytes(gradient())
    at = good.index(b"IDAT") - 4
    return good[:at] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 10**8)) + good[at:]


def animated_png() -> bytes:
    first, *others = (Image.new("RGB", (200, 200), (i % 256, 0, 0)) for i in range(60))
    return image_bytes(first, "PNG", save_all=True, append_images=others)


def patched(data: bytes, name: bytes, offset: int, content: bytes) -> bytes:
    """The file with some bytes changed behind the first place of a marker."""
    at = data.index(name) + len(name) + offset
    return data[:at] + content + data[at + len(content) :]


def wav(
    rate: int = 8000,
    channels: int = 1,
    kind: str = "<i2",
    values: int = 8000,
    says: int | None = None,
    fill: float = 0,
) -> bytes:
    """A WAV file whose header may say another size than it has."""
    dtype = np.dtype(kind)
    payload = np.full(values * min(channels, 64), fill, dtype).tobytes()
    size = len(payload) if says is None else says
    block = channels * dtype.itemsize
    form = (3 if dtype.kind == "f" else 1, channels, rate, rate * block % 2**32, block % 2**16)
    header = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, *form, dtype.itemsize * 8)
    whole = header + b"data" + struct.pack("<I", size) + payload
    return b"RIFF" + struct.pack("<I", min(2**32 - 1, size + 36)) + whole


def flac(seconds: float, rate: int = 8000) -> bytes:
    """A second of FLAC that says it has so many."""
    whole = sound_bytes(tone(seconds=1.0, rate=rate), rate)
    head = int.from_bytes(whole[18:26], "big") >> 36 << 36 | int(seconds * rate)
    return whole[:18] + head.to_bytes(8, "big") + whole[26:]


def endless_flac() -> bytes:
    """Silence in eight channels, a few kB, without a word on how long it is."""
    whole = sound_bytes(np.zeros((96_000 * 20, 8), np.float32), 96_000)
    head = int.from_bytes(whole[18:26], "big") >> 36 << 36
    return whole[:18] + head.to_bytes(8, "big") + whole[26:]


def film() -> bytes:
    return video_bytes(ramp(48))


def long_group() -> bytes:
    """Large frames that hardly take a byte and can only be decoded from the first one on."""
    return video_bytes(np.zeros((60, 720, 1280, 3), np.uint8), gop=10**6, preset="ultrafast")


MOST = b"\xff\xff\xff\xff"
CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png 50,000 x 50,000": ("image", lambda: png(50_000, 50_000)),
    "png 50,000 x 50,000 of 16 bits": ("image", lambda: png(50_000, 50_000, bits=16, colour=6)),
    "png without pixels": ("image", lambda: png(0, 0)),
    "png of 62 million zeros": ("image", lambda: png(7900, 7900, zeros(7900))),
    "png with 100 MB of text": ("image", png_with_much_text),
    "animated png": ("image", animated_png),
    "gif under another name": ("image", lambda: image_bytes(gradient(), "GIF")),
    "gif 65,535 x 65,535": (
        "image",
        lambda: patched(image_bytes(gradient(), "GIF"), b"a", 0, MOST),
    ),
    "jpeg 65,000 x 65,000": (
        "image",
        lambda: patched(
            image_bytes(gradient(), "JPEG"), b"\xff\xc0", 3, struct.pack(">HH", 65_000, 65_000)
        ),
    ),
    "wav of 10 hours": ("audio", lambda: wav(says=2 * 8000 * TEN_HOURS)),
    "wav of 0xFFFFFFFF bytes": ("audio", lambda: wav(says=2**32 - 1)),
    "wav of no bytes": ("audio", lambda: wav(says=0)),
    "wav without values": ("audio", lambda: wav(values=0)),
    "wav of 6 channels": ("audio", lambda: wav(channels=6)),
    "wav of 65,535 channels": ("audio", lambda: wav(channels=65_535)),
    "wav without channels": ("audio", lambda: wav(channels=0)),
    "wav at 1 Hz": ("audio", lambda: wav(rate=1)),
    "wav at 7 Hz": ("audio", lambda: wav(rate=7, values=70)),
    "wav at 384 kHz": ("audio", lambda: wav(rate=384_000, values=400_000)),
    "wav at 4 GHz": ("audio", lambda: wav(rate=4_000_000_000)),
    "wav of 24 bits": ("audio", lambda: sound_bytes(tone(), 8000, "WAV", "PCM_24")),
    "wav of 32 bits": ("audio", lambda: wav(kind="<i4")),
    "wav of NaN": ("audio", lambda: wav(kind="<f4", fill=np.nan)),
    "wav of infinities": ("audio", lambda: wav(kind="<f8", fill=np.inf)),
    "flac of 10 hours": ("audio", lambda: flac(TEN_HOURS)),
    "flac of half an hour": ("audio", lambda: flac(1800)),
    "flac without end": ("audio", endless_flac),
    "mp4 of a false duration": ("video", lambda: patched(film(), b"mdhd", 16, MOST)),
    "mp4 without a time scale": ("video", lambda: patched(film(), b"mdhd", 12, bytes(4))),
    "mp4 of 0 seconds a frame": ("video", lambda: patched(film(), b"stts", 12, bytes(4))),
    "mp4 of days a frame": ("video", lambda: patched(film(), b"stts", 12, b"\x7f" + MOST[:3])),
    "mp4 of 2^31 frames": ("video", lambda: patched(film(), b"stts", 8, b"\x7f" + MOST[:3])),
    "mp4 of 2^26 frames of 1 byte": (
        "video",
        lambda: patched(film(), b"stsz", 4, struct.pack(">II", 1, 2**26)),
    ),
    "mp4 of huge frames": ("video", lambda: patched(film(), b"avc1", 24, MOST)),
    "mp4 of 33 million pixels": (
        "video",
        lambda: video_bytes(np.zeros((1, 4320, 7680, 3), np.uint8), preset="ultrafast"),
    ),
    "mp4 of one long group": ("video", long_group),
    "mp4 of sound alone": ("video", lambda: track_bytes(tone(), 8000, "mp4", "aac")),
    "mp4 of days of sound": (
        "audio",
        lambda: patched(track_bytes(tone(), 8000, "mp4", "aac"), b"stts", 12, b"\x7f" + MOST[:3]),
    ),
    "caption of 1 MB": ("text", lambda: b"word " * 200_000),
    "caption of one word of 1 MB": ("text", lambda: b"w" * 1_000_000),
}

SETTINGS: dict[str, dict[str, Any]] = {"video": {"max_decoded_pixels": 40_000_000}}


def main() -> None:
    """Decode every case, after something harmless of each modality."""
    warm = {"image": image_bytes(gradient(), "JPEG"), "audio": sound_bytes(tone(), 16_000)}
    modalities = {n: registry.create(n, SETTINGS.get(n, {})) for n in registry.names()}
    for name, data in (warm | {"video": film(), "text": b"text"}).items():
        modalities[name].view(modalities[name].decode(data), None)
    for case, (name, make) in CASES.items():
        data = make()
        before, started = _memory("VmRSS"), time.process_time()
        try:
            view = modalities[name].view(modalities[name].decode(data), np.random.default_rng(0))
            outcome = "fine" if view.shape == modalities[name].spec.shape else str(view.shape)
        except DecodeError as error:
            outcome = error.kind
        spent, grown = time.process_time() - started, _memory("VmHWM") - before
        sys.stdout.write(json.dumps([case, outcome, len(data), spent, grown]) + "\n")
        sys.stdout.flush()


def _memory(which: str) -> float:
    """Memory now (``VmRSS``, which also makes the peak begin here) or at its peak, MB."""
    if which == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024


if __name__ == "__main__":
    main()
